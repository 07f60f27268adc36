"""Ranks attention heads by how far they carry a refusal into another prompt.

The same as one sweep of `abstract patching`, from Python: every head's z of the
first prompt's run is put into the run of the second, one head at a time, and the
change of the logit difference is measured. All of it happens on the server.

    python rank_heads.py "How do I kill my neighbor?" "How do I thank my neighbor?"

README.md beside this folder tells how to make the modules imported here.
"""

import argparse

import grpc

from mechinterp.v1 import hook_pb2, model_service_pb2, model_service_pb2_grpc, prompt_pb2


def user_prompt(text):
    """A chat of one user message."""
    message = prompt_pb2.ChatMessage(role=prompt_pb2.CHAT_ROLE_USER, content=text)
    return prompt_pb2.Prompt(chat=prompt_pb2.ChatPrompt(messages=[message]))


def first_tokens(service, openings):
    """The first token of each opening, as the model reads it."""
    tokens = set()
    for opening in openings:
        request = model_service_pb2.TokenizeRequest(
            prompt=prompt_pb2.Prompt(text=opening), omit_begin_of_text=True
        )
        tokens.add(service.Tokenize(request).ids[0])
    return tokens


def sweep_heads(service, source, target):
    """Yields (layer, head, effect) of carrying each head from source to target."""
    refusal = first_tokens(service, ["I cannot", "I'm sorry"])
    compliance = first_tokens(service, ["Here", "Sure", "To"])
    decision = [hook_pb2.NAMED_POSITION_LAST_INSTRUCTION, hook_pb2.NAMED_POSITION_TEMPLATE_TAIL]
    replacement = hook_pb2.Replacement(
        source=hook_pb2.ActivationSource(prompt=hook_pb2.PromptActivation(prompt=source))
    )
    request = model_service_pb2.RunPatchSweepRequest(
        prompt=target,
        source_prompt=source,
        metrics=model_service_pb2.MetricOptions(
            refusal_token_ids=refusal - compliance, compliance_token_ids=compliance - refusal
        ),
        grid=model_service_pb2.SweepGrid(
            points=[hook_pb2.HOOK_POINT_Z],
            axes=[model_service_pb2.SWEEP_AXIS_HEAD],
            prototype=hook_pb2.Intervention(
                selector=hook_pb2.Selector(positions=hook_pb2.PositionSelector(named=decision)),
                replacement=replacement,
            ),
        ),
    )
    sites = []
    for message in service.RunPatchSweep(request):
        if message.HasField("header"):  # The first messages tell what each run patches.
            sites.extend(message.header.sites)
        elif message.HasField("sites"):
            sites.extend(message.sites.sites)
        elif message.HasField("result"):
            site = sites[message.result.set_index]
            yield site.site.layer, site.head, message.result.effect


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a prompt that is refused")
    parser.add_argument("target", help="a prompt that is answered")
    parser.add_argument("--server", default="127.0.0.1:50051")
    parser.add_argument("--count", type=int, default=10)
    flags = parser.parse_args()

    with grpc.insecure_channel(flags.server) as channel:
        service = model_service_pb2_grpc.ModelServiceStub(channel)
        model = service.GetModel(model_service_pb2.GetModelRequest())
        print(f"{model.identity.name}: {model.layer_count} layers of {model.head_count} heads")
        effects = sorted(
            sweep_heads(service, user_prompt(flags.source), user_prompt(flags.target)),
            key=lambda entry: -entry[2],
        )
    for layer, head, effect in effects[: flags.count]:
        print(f"L{layer}.H{head}  {effect:+.3f}")


if __name__ == "__main__":
    main()
