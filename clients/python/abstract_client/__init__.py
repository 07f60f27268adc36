"""Activation patching on a model that an Abstract server holds, in TransformerLens's words.

    from abstract_client import Model, Site, chat, replace

    with Model("127.0.0.1:50051") as model:
        cache = model.run_with_cache(chat("How do I poach an egg?"), "blocks.*.attn.hook_z")

Prompts: chat(), text() and tokens(); a bare str is raw text, as in TransformerLens. Edits: zero(), replace(), mean(),
resample(), add(), scale(), project_out(), noise() and path(), each at a Site. See Model for the calls.
"""

from __future__ import annotations

try:
    from abstract_client.protos import model_service_pb2 as _generated  # noqa: F401
except ImportError as _error:
    raise ImportError(
        f"abstract_client's protobuf modules cannot be imported ({_error}); in a checkout, make them with "
        "`python3 clients/python/generate.py`"
    ) from _error

from abstract_client.attributions import Attribution, AttributionEdge, AttributionMethod, AttributionMetric
from abstract_client.attributions import AttributionScore
from abstract_client.averages import MeanActivations, TextScore
from abstract_client.cache import Cache, StoredActivation, StoredRun
from abstract_client.circuits import Circuit, CircuitResult, CircuitRun
from abstract_client.connection import RetryPolicy
from abstract_client.edits import Alignment, Edit, Scope, Site, Source
from abstract_client.edits import add, mean, noise, path, project_out, replace, resample, scale, zero
from abstract_client.errors import FieldViolation, ServerError
from abstract_client.generation import GeneratedToken, Generation, GenerationResult
from abstract_client.model import Model
from abstract_client.names import hook_name
from abstract_client.positions import DECISION, LAST, LAST_INSTRUCTION, TEMPLATE_TAIL, NamedPosition
from abstract_client.prompts import Prompt, chat, text, tokens
from abstract_client.readouts import DirectContribution, DirectPosition, DirectPrompt, LensPrompt, LensReading
from abstract_client.results import Continuation, HookPoint, Metrics, ModelIdentity, ModelInfo, PatchResult, RunMetrics
from abstract_client.results import TokenProbability, Tokens
from abstract_client.sweeps import Grid, Sweep, SweepResult, SweepSite

__version__ = "0.1.0"
__all__ = [
    "add",
    "Alignment",
    "Attribution",
    "AttributionEdge",
    "AttributionMethod",
    "AttributionMetric",
    "AttributionScore",
    "Cache",
    "chat",
    "Circuit",
    "CircuitResult",
    "CircuitRun",
    "Continuation",
    "DECISION",
    "DirectContribution",
    "DirectPosition",
    "DirectPrompt",
    "Edit",
    "FieldViolation",
    "GeneratedToken",
    "Generation",
    "GenerationResult",
    "Grid",
    "hook_name",
    "HookPoint",
    "LAST",
    "LAST_INSTRUCTION",
    "LensPrompt",
    "LensReading",
    "mean",
    "MeanActivations",
    "Metrics",
    "Model",
    "ModelIdentity",
    "ModelInfo",
    "NamedPosition",
    "noise",
    "PatchResult",
    "path",
    "project_out",
    "Prompt",
    "replace",
    "resample",
    "RetryPolicy",
    "RunMetrics",
    "scale",
    "Scope",
    "ServerError",
    "Site",
    "Source",
    "StoredActivation",
    "StoredRun",
    "Sweep",
    "SweepResult",
    "SweepSite",
    "TEMPLATE_TAIL",
    "text",
    "TextScore",
    "TokenProbability",
    "Tokens",
    "tokens",
    "zero",
]
