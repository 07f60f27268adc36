#!/usr/bin/env bash
# The model server as a program: bad options and taken ports end it with a clear
# message, options come from flags, environment and file, SIGTERM ends it cleanly.
#   model_server_test.sh SERVER_PROGRAM CLIENT_PROGRAM SOURCE_FOLDER
set -uo pipefail
server="$1" client="$2" model="$3/data/models/tiny-llama-refusal"
. "$(dirname "${BASH_SOURCE[0]}")/program_functions.sh"

expect 'an unknown model path ends it' fails "$server" --model /nowhere --listen-address 127.0.0.1:0 --metrics-address ''
expect '... and is named' says 'there is no directory /nowhere'
export HF_HUB_CACHE="$scratch/hub"
expect 'a repo id that is not in the cache ends it' fails "$server" --model org/tiny --listen-address 127.0.0.1:0 --metrics-address ''
expect '... with the command that gets it' says 'hf download org/tiny'
expect 'a chat template that the tokenizer does not know ends it' fails "$server" --model "$model" --chat-template chatml --listen-address 127.0.0.1:0 --metrics-address ''
expect '... with the token that is missing' says '<|im_start|>'
expect 'an unknown option ends it' fails "$server" --modle x
expect '... and is named' says '--modle'
expect 'a bad address ends it' fails "$server" --model "$model" --listen-address nonsense --metrics-address ''
expect '... and is named' says 'nonsense'

start "$server" --model "$model" --listen-address 127.0.0.1:0 --metrics-address 127.0.0.1:0
address="127.0.0.1:$(port_of serving)"
metrics_port=$(port_of metrics)
expect 'a taken port ends a second server' fails "$server" --model "$model" --listen-address "$address" --metrics-address ''
expect '... and is named' says "cannot listen on $address: Address already in use"
expect 'a taken metrics port too' fails "$server" --model "$model" --listen-address 127.0.0.1:0 --metrics-address "127.0.0.1:$metrics_port"
expect '... and is named' says "127.0.0.1:$metrics_port"
expect 'it answers' "$client" --server "$address" --quiet generate 'How do I make a sandwich?'
exec 3<>"/dev/tcp/127.0.0.1/$metrics_port"
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
cat <&3 >"$scratch/log"
exec 3>&-
expect 'it counts what it generates' says 'mechinterp_generated_tokens_total'
expect 'it counts its RPCs' says 'grpc_server_handled_total'
expect 'it tells its model' says 'mechinterp_model_info'
expect 'SIGTERM ends it with status 0' stop

printf 'model_service:\n  model: %s\n  listen_address: 127.0.0.1:0\n  metrics_address: ""\n' "$model" >"$scratch/config.yaml"
ABSTRACT_MODEL_THREADS=1 start "$server" --config "$scratch/config.yaml"
expect 'options come from file and environment' grep -q 'with 1 threads' "$scratch/server.log"
expect 'SIGTERM ends it again' stop

commit=0123456789abcdef0123456789abcdef01234567
mkdir -p "$HF_HUB_CACHE/models--org--tiny/refs" "$HF_HUB_CACHE/models--org--tiny/snapshots"
printf %s "$commit" >"$HF_HUB_CACHE/models--org--tiny/refs/main"
cp -r "$model" "$HF_HUB_CACHE/models--org--tiny/snapshots/$commit"
start "$server" --model org/tiny --listen-address 127.0.0.1:0 --metrics-address ''
"$client" --server "127.0.0.1:$(port_of serving)" --quiet model >"$scratch/log" 2>&1
expect 'a model in the cache goes by its repo id' says 'org/tiny'
expect '... with its chat template' says 'llama3'
expect 'SIGTERM ends that too' stop

# Families beside Llama, in 4 bits and without a tokenizer: prompts are token ids.
for family in qwen2 qwen3; do
  start "$server" --model "$3/tests/testdata/$family" --quantization nf4 --listen-address 127.0.0.1:0 --metrics-address ''
  address="127.0.0.1:$(port_of serving)"
  "$client" --server "$address" --quiet model >"$scratch/log" 2>&1
  expect "$family is served" says 'Qwen'
  expect '... generates' "$client" --server "$address" --quiet generate --token-ids 5,9,17,33,2 --max-new-tokens 4
  expect '... records' "$client" --server "$address" --quiet cache --token-ids 5,9,17,33,2 --filter 'blocks.1.attn.*' \
    --output "$scratch/$family.safetensors"
  expect '... patches a head' "$client" --server "$address" --quiet patch --token-ids 5,9,17,33,2 \
    --site blocks.1.attn.hook_z --heads 1 --edit zero
  expect 'SIGTERM ends it' stop
done

[[ "$failures" -eq 0 ]]
