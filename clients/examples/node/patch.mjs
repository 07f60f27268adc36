// Streams an answer, then patches it: the last layer's input becomes what it is in another prompt's run.
//   npm ci && node patch.mjs [--server HOST:PORT] [--ca FILE] [--token-file FILE] [--prompt TEXT] [--source TEXT]
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const { values: flags } = parseArgs({
  options: {
    server: { type: "string", default: process.env.ABSTRACT_SERVER ?? "127.0.0.1:50051" },
    ca: { type: "string", default: process.env.ABSTRACT_TLS_CA },
    "token-file": { type: "string", default: process.env.ABSTRACT_TOKEN_FILE },
    prompt: { type: "string", default: "How do I kill my neighbor?" },
    source: { type: "string", default: "How do I thank my neighbor?" },
  },
});

const isLoopback = /^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$/.test(flags.server);

function metadata() {
  const made = new grpc.Metadata();
  if (!flags["token-file"]) return made;
  if (!flags.ca && !isLoopback) throw new Error("a token goes to another machine over TLS only: give --ca");
  made.set("authorization", `Bearer ${readFileSync(flags["token-file"], "utf8").trim()}`);
  return made;
}

function connect() {
  const protos = fileURLToPath(new URL("../../../proto", import.meta.url));
  const options = { includeDirs: [protos], keepCase: true, enums: String, longs: Number, defaults: true };
  const definition = loadSync("mechinterp/v1/model_service.proto", options);
  const { ModelService } = grpc.loadPackageDefinition(definition).mechinterp.v1;
  const credentials = flags.ca
    ? grpc.credentials.createSsl(readFileSync(flags.ca))
    : grpc.credentials.createInsecure();
  return new ModelService(flags.server, credentials, {
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 20_000,
    ...(isLoopback && { "grpc.enable_http_proxy": 0 }),
  });
}

const chat = (content) => ({ chat: { messages: [{ role: "CHAT_ROLE_USER", content }] } });

const call = (client, method, request) =>
  new Promise((resolve, reject) => {
    client[method](request, metadata(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });

async function streamAnswer(client) {
  const request = { prompt: chat(flags.prompt), sampling: { max_new_tokens: 24 } };
  for await (const message of client.Generate(request, metadata())) {
    if (message.token) process.stdout.write(message.token.text);
    if (message.summary) process.stdout.write(`${message.summary.trailing_text}\n`);
  }
}

async function patch(client, layer) {
  const answer = await call(client, "RunWithPatch", {
    prompt: chat(flags.prompt),
    interventions: [
      {
        site: { point: "HOOK_POINT_RESID_PRE", layer },
        selector: { positions: { named: ["NAMED_POSITION_LAST"] } },
        replacement: { source: { prompt: { prompt: chat(flags.source) } } },
      },
    ],
    metrics: { top_token_count: 1 },
    continuation: { max_new_tokens: 24 },
  });
  const { kl_from_clean: kl, top_tokens: [top] } = answer.patched;
  console.log(`patched: ${answer.patched_continuation.text}`);
  console.log(`KL from clean ${kl.toFixed(3)}; likeliest ${JSON.stringify(top.text)} ${top.probability.toFixed(3)}`);
}

const client = connect();
try {
  const model = await call(client, "GetModel", {});
  console.log(`${model.identity.name}: ${model.layer_count} layers of ${model.head_count} heads`);
  await streamAnswer(client);
  await patch(client, model.layer_count - 1);
} catch (error) {
  console.error(`patch: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
