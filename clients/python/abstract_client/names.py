"""Hook names, which are TransformerLens's, and what they are on the wire."""

from __future__ import annotations

import re

from abstract_client.checks import optional_whole_number
from abstract_client.protos import hook_pb2

# In the order of the forward pass; of a block's points, the part after "blocks.N.".
_OUTSIDE_BLOCKS = {
    "hook_embed": "EMBED",
    "ln_final.hook_scale": "LN_FINAL_SCALE",
    "ln_final.hook_normalized": "LN_FINAL_NORMALIZED",
    "logits": "LOGITS",
}
_IN_BLOCKS = {
    "hook_resid_pre": "RESID_PRE",
    "hook_q_input": "Q_INPUT",
    "hook_k_input": "K_INPUT",
    "hook_v_input": "V_INPUT",
    "ln1.hook_scale": "LN1_SCALE",
    "ln1.hook_normalized": "LN1_NORMALIZED",
    "attn.hook_q": "Q",
    "attn.hook_k": "K",
    "attn.hook_v": "V",
    "attn.hook_rot_q": "ROT_Q",
    "attn.hook_rot_k": "ROT_K",
    "attn.hook_attn_scores": "ATTN_SCORES",
    "attn.hook_pattern": "PATTERN",
    "attn.hook_z": "Z",
    "attn.hook_result": "RESULT",
    "hook_attn_out": "ATTN_OUT",
    "hook_resid_mid": "RESID_MID",
    "hook_mlp_in": "MLP_IN",
    "ln2.hook_scale": "LN2_SCALE",
    "ln2.hook_normalized": "LN2_NORMALIZED",
    "mlp.hook_pre": "MLP_PRE",
    "mlp.hook_pre_linear": "MLP_PRE_LINEAR",
    "mlp.hook_post": "MLP_POST",
    "hook_mlp_out": "MLP_OUT",
    "hook_resid_post": "RESID_POST",
}
_MADE_ON_REQUEST = ("hook_q_input", "hook_k_input", "hook_v_input", "attn.hook_result", "hook_mlp_in")
_BLOCK = re.compile(r"blocks\.(\d+|\*)\.(.+)")

# What run_with_cache records unless it is told: everything but what the pass makes only when asked for, as
# TransformerLens leaves out use_attn_result and the like.
DEFAULT_PATTERNS = [
    *_OUTSIDE_BLOCKS,
    *(f"blocks.*.{name}" for name in _IN_BLOCKS if name not in _MADE_ON_REQUEST),
]

# TransformerLens's short names: "z" is attn.hook_z. Of names in several places ("scale", "normalized") none.
_SHORT = {name.rpartition("hook_")[2]: name for name in _IN_BLOCKS if not name.startswith("ln")}
_SHORT |= {"attn": "attn.hook_pattern", "attn_logits": "attn.hook_attn_scores", "mlp_post": "mlp.hook_post"}


def hook_name(short: str, layer: int | None = None) -> str:
    """The full name of a point, as TransformerLens's utils.get_act_name gives it.

    >>> hook_name("z", 3), hook_name("resid_pre", 0), hook_name("embed")
    ('blocks.3.attn.hook_z', 'blocks.0.hook_resid_pre', 'hook_embed')
    """
    layer = optional_whole_number(layer, "layer")
    if layer is None:
        for name in (short, f"hook_{short}"):
            if name in _OUTSIDE_BLOCKS:
                return name
        raise ValueError(f"short: no point outside the blocks is called {short!r}; in a block, give its layer")
    name = short if short in _IN_BLOCKS else _SHORT.get(short, "")
    if not name:
        raise ValueError(f"short: no point of a block is called {short!r}; there are {', '.join(sorted(_SHORT))}")
    return f"blocks.{layer}.{name}"


def parse_name(name: str) -> tuple[int, int | None]:
    """The HookPoint and the layer of "blocks.3.attn.hook_z".

    The layer is 0 where there are no layers, and None for "blocks.*.": every layer. Raises ValueError.
    """
    if name in _OUTSIDE_BLOCKS:
        return _point(_OUTSIDE_BLOCKS[name]), 0
    match = _BLOCK.fullmatch(name)
    if match and match[2] in _IN_BLOCKS:
        return _point(_IN_BLOCKS[match[2]]), None if match[1] == "*" else int(match[1])
    if match:
        raise ValueError(f"site: no point of a block is called {match[2]!r}; there are {', '.join(_IN_BLOCKS)}")
    raise ValueError(f"site: {name!r} is no hook point; write blocks.3.attn.hook_z or {', '.join(_OUTSIDE_BLOCKS)}")


def _point(word: str) -> int:
    return int(hook_pb2.HookPoint.Value(f"HOOK_POINT_{word}"))


_NAME_OF_POINT = {_point(word): name for name, word in _OUTSIDE_BLOCKS.items()}
_NAME_OF_POINT |= {_point(word): f"blocks.*.{name}" for name, word in _IN_BLOCKS.items()}


def site_name(site: hook_pb2.HookSite) -> str:
    """The name of a site that a server sent; of points newer than this package "HOOK_POINT_30.layer"."""
    name = _NAME_OF_POINT.get(site.point)
    if name is None:
        return f"HOOK_POINT_{site.point}.{site.layer}"
    return name.replace("*", str(site.layer))
