"""Hosted providers that discovery knows: key variable, address, and a few models with windows, abilities and prices.

Data, not code: USD per million tokens, tokens. List prices after the cost map of litellm 1.106.2 (MIT licence), looked
up on 2026-11-21; models that the map marks as ending are left out. A candidate of the config file or the registry
replaces all of this.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.registry.records import Ability, Candidate, Deployment, Endpoint

CHECKED_ON = "2026-11-21"
SEEING = frozenset({Ability.TOOLS, Ability.JSON_SCHEMA, Ability.VISION})
READING = frozenset({Ability.TOOLS, Ability.JSON_SCHEMA})


@dataclass(frozen=True, slots=True)
class HostedModel:
    """One model of a provider; prices as (input, cached input, output)."""

    name: str
    context_window: int | None
    max_output_tokens: int | None
    prices: tuple[float | None, float | None, float | None]
    can: frozenset[Ability] = SEEING


@dataclass(frozen=True, slots=True)
class Provider:
    """A hosted provider. Without `base_url` its dialect is translated by litellm; `prefix` keeps names apart."""

    name: str
    variables: tuple[str, ...]
    models: tuple[HostedModel, ...]
    base_url: str = ""
    dialect: str = "openai"
    prefix: str = ""
    endpoints: frozenset[Endpoint] = frozenset({Endpoint.CHAT})


PROVIDERS: tuple[Provider, ...] = (
    Provider(
        "OpenAI",
        ("OPENAI_API_KEY",),
        (
            HostedModel("gpt-5.5", 1_050_000, 128_000, (5.0, 0.5, 30.0)),
            HostedModel("gpt-5.4-mini", 272_000, 128_000, (0.75, 0.075, 4.5)),
            HostedModel("gpt-5.4-nano", 272_000, 128_000, (0.2, 0.02, 1.25)),
        ),
        base_url="https://api.openai.com/v1",
        endpoints=frozenset({Endpoint.CHAT, Endpoint.RESPONSES}),
    ),
    Provider(
        "Anthropic",
        ("ANTHROPIC_API_KEY",),
        (
            HostedModel("claude-opus-5-5", 1_000_000, 128_000, (4.0, 0.2, 20.0)),
            HostedModel("claude-sonnet-5-5", 1_000_000, 128_000, (2.0, 0.1, 10.0)),
            HostedModel("claude-haiku-4-5", 200_000, 64_000, (1.0, 0.1, 5.0)),
        ),
        dialect="anthropic",
    ),
    Provider(
        "Google Gemini",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        (
            HostedModel("gemini-2.5-pro", 1_048_576, 65_536, (1.25, 0.125, 10.0)),
            HostedModel("gemini-3.8-flash", 1_048_576, 65_536, (0.75, 0.075, 3.75)),
            HostedModel("gemini-3.5-flash-lite", 1_048_576, 65_536, (0.3, 0.03, 2.5)),
        ),
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    ),
    Provider(
        "Mistral",
        ("MISTRAL_API_KEY",),
        (
            HostedModel("mistral-medium-latest", 262_144, None, (1.5, 0.15, 7.5)),
            HostedModel("mistral-large-latest", 262_144, None, (0.5, 0.05, 1.5)),
            HostedModel("mistral-small-latest", 262_144, None, (0.15, 0.015, 0.6)),
        ),
        base_url="https://api.mistral.ai/v1",
    ),
    Provider(
        "Groq",
        ("GROQ_API_KEY",),
        (
            HostedModel("openai/gpt-oss-120b", 131_072, 65_536, (0.15, 0.075, 0.6), READING),
            HostedModel("openai/gpt-oss-20b", 131_072, 65_536, (0.075, 0.0375, 0.3), READING),
        ),
        base_url="https://api.groq.com/openai/v1",
        prefix="groq/",
    ),
    Provider(
        "DeepSeek",
        ("DEEPSEEK_API_KEY",),
        (
            HostedModel("deepseek-v4-pro", 1_000_000, 393_216, (1.32, 0.044, 3.96), READING),
            HostedModel("deepseek-v4-flash", 1_000_000, 393_216, (0.3, 0.006, 1.2)),
        ),
        base_url="https://api.deepseek.com/v1",
    ),
    Provider(
        "xAI",
        ("XAI_API_KEY",),
        (
            HostedModel("grok-4.7", 500_000, None, (2.0, 0.5, 6.0)),
            HostedModel("grok-4.3", 1_000_000, None, (1.25, 0.2, 2.5)),
        ),
        base_url="https://api.x.ai/v1",
    ),
    Provider(
        "Together AI",
        ("TOGETHER_API_KEY", "TOGETHERAI_API_KEY"),
        (HostedModel("openai/gpt-oss-120b", 131_072, None, (0.15, None, 0.6), READING),),
        base_url="https://api.together.xyz/v1",
        prefix="together/",
    ),
    Provider(
        "OpenRouter",
        ("OPENROUTER_API_KEY",),
        (HostedModel("openrouter/auto", None, None, (None, None, None), READING),),
        base_url="https://openrouter.ai/api/v1",
    ),
)


def candidates_of(provider: Provider, variable: str) -> list[Candidate]:
    """The provider's models as candidates that read their key from `variable`."""
    found = []
    for model in provider.models:
        name = provider.prefix + model.name
        price_in, price_cached_in, price_out = model.prices
        place = Deployment(f"{name}#0", provider.base_url, model.name, provider.dialect, variable)
        found.append(
            Candidate(
                name,
                (place,),
                price_in=price_in,
                price_out=price_out,
                price_cached_in=price_cached_in,
                context_window=model.context_window,
                max_output_tokens=model.max_output_tokens,
                can=model.can,
                endpoints=provider.endpoints,
                source="discovered",
            )
        )
    return found
