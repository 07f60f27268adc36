# Renders conversations by a Jinja chat template, in an environment like the one that
# transformers renders in. Reads from standard input
#   {"template": "...", "special_tokens": {"bos_token": "<s>", ...},
#    "conversations": [{"messages": [{"role": "user", "content": "..."}],
#                       "add_generation_prompt": true}, ...]}
# and writes {"renderings": ["...", {"error": "..."}, ...]}, the latter where the template raises
# an error, or {"error": "..."} for what is no template. Exit code 3: there is no jinja2.
import sys

sys.path[:] = [entry for entry in sys.path if entry]  # not from the folder that the server runs in

import datetime
import json

try:
    import jinja2
    import jinja2.debug
    import jinja2.ext
    import jinja2.sandbox
except ImportError:
    sys.exit(3)

LARGEST_RENDERING = 100_000


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what a model is trained on; it writes nothing."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


# Always the day that Llama's templates write where they know none: a prompt means the
# same every day.
def strftime_now(form):
    return datetime.datetime(2024, 7, 26).strftime(form)


def environment():
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


# The sandbox keeps templates from the system; these keep them from its time and memory,
# and should it leak, from files and the network.
def give_up_rights():
    try:
        import resource
    except ImportError:
        return
    for what, most in (("RLIMIT_CPU", 5), ("RLIMIT_AS", 1 << 30), ("RLIMIT_NPROC", 0), ("RLIMIT_NOFILE", 3)):
        try:
            resource.setrlimit(getattr(resource, what), (most, most))
        except (AttributeError, OSError, ValueError):
            pass


def render(template, conversation, special_tokens):
    try:
        text = template.render(
            messages=conversation["messages"],
            tools=None,
            documents=None,
            add_generation_prompt=conversation["add_generation_prompt"],
            **special_tokens,
        )
    except Exception as error:
        return {"error": str(error)[:200]}
    return text if len(text) <= LARGEST_RENDERING else {"error": "it writes too much"}


def answer(request):
    made = environment()
    made.from_string("{{ '%s' % 1 | tojson }}").render()
    give_up_rights()
    try:
        template = made.from_string(request["template"])
    except Exception as error:
        return {"error": str(error)[:500]}
    return {
        "renderings": [render(template, each, request["special_tokens"]) for each in request["conversations"]]
    }


json.dump(answer(json.load(sys.stdin)), sys.stdout)
