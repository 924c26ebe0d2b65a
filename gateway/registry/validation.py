"""Checks of a registration: every bad value is named with what is wrong and the fix, all of them at once."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit

from gateway.errors import InvalidBody
from gateway.registry.addresses import Address, NetworkRules, as_address, is_metadata_name, refusal, resolve
from gateway.registry.records import Candidate, Deployment
from gateway.settings import NAME_PATTERN, read_secret

Resolver = Callable[[str], Awaitable[Sequence[Address]]]

MAX_DEPLOYMENTS = 64
MAX_URL = 2048
MAX_PRICE = 100_000.0
MAX_WINDOW = 1_000_000_000
# Nobody sells a million tokens for less; somebody who types 0.0000015 means USD per token.
SUSPICIOUS_PRICE = 0.001
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
LOOKS_LIKE_A_KEY = re.compile(r"(sk|gsk|key|xai|hf|ow|AIza)[-_]|^AIza|[-.]|^.{65,}$")
ENDPOINT_TAILS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/models")


@dataclass(frozen=True, slots=True)
class Finding:
    """One bad value: the field, what is wrong with which value, and the fix."""

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem} {self.fix}"


async def check_candidate(candidate: Candidate, rules: NetworkRules, resolver: Resolver = resolve) -> list[str]:
    """Check a registration.

    Args:
        resolver: looks host names up.
    Returns:
        Warnings: things that work but are probably not meant.
    Raises:
        InvalidBody: one line for each bad value; `param` is the first field at fault.
    """
    findings = [*_check_name(candidate), *_check_numbers(candidate)]
    warnings = _price_warnings(candidate)
    if len(candidate.deployments) > MAX_DEPLOYMENTS:
        count = len(candidate.deployments)
        findings.append(Finding("deployments", f"{count} are too many.", f"At most {MAX_DEPLOYMENTS}."))
    for deployment in candidate.deployments[:MAX_DEPLOYMENTS]:
        findings += _check_deployment(deployment)
        host_findings, host_warnings = await _check_host(deployment, rules, resolver)
        findings += host_findings
        warnings += [*host_warnings, *_deployment_warnings(deployment)]
    if findings:
        message = "\n".join(dict.fromkeys(str(finding) for finding in findings))
        raise InvalidBody(message, param=findings[0].field, code="invalid_candidate")
    return list(dict.fromkeys(warnings))


def _check_name(candidate: Candidate) -> list[Finding]:
    name = candidate.name
    if not re.fullmatch(NAME_PATTERN, name):
        fix = "Use letters, digits and . _ : / @ + - (at most 128), starting with a letter or digit."
        return [Finding("name", f"{name[:140]!r} is not a usable name.", fix)]
    if name == "auto" or name.startswith("auto:"):
        return [Finding("name", f"{name!r} is reserved for routing.", "Choose another.")]
    return []


def _check_numbers(candidate: Candidate) -> list[Finding]:
    findings = []
    for field in ("price_in", "price_out", "price_cached_in"):
        price = getattr(candidate, field)
        if price is not None and not (math.isfinite(price) and 0 <= price <= MAX_PRICE):
            fix = f"Give USD per million tokens, 0 to {MAX_PRICE:,.0f}."
            findings.append(Finding(field, f"{price!r} is not a price.", fix))
    for field in ("context_window", "max_output_tokens"):
        size = getattr(candidate, field)
        if size is not None and not 1 <= size <= MAX_WINDOW:
            findings.append(Finding(field, f"{size!r} is not a number of tokens.", "Give a whole number from 1."))
    for field in ("params_total_b", "params_active_b"):
        value = getattr(candidate, field)
        if value is not None and not (math.isfinite(value) and 0 < value <= 1e6):
            findings.append(Finding(field, f"{value!r} is not a size.", "Give billions of parameters, above 0."))
    strength = candidate.strength
    if strength is not None and not 0 <= strength <= 1:
        findings.append(
            Finding("strength", f"{strength!r} is out of range.", "Give a share from 0 (weak) to 1 (best).")
        )
    window, output = candidate.context_window, candidate.max_output_tokens
    if window and output and output > window:
        problem = f"{output} is more than the context window of {window}."
        findings.append(Finding("max_output_tokens", problem, "Give at most the window."))
    total, active = candidate.params_total_b, candidate.params_active_b
    if total and active and active > total:
        findings.append(Finding("params_active_b", f"{active} is more than all {total}.", "Give the active share."))
    date = candidate.release_date
    if date is not None and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?", date):
        findings.append(Finding("release_date", f"{date[:40]!r} is not a date.", "Write YYYY-MM or YYYY-MM-DD."))
    return findings


def _check_deployment(deployment: Deployment) -> list[Finding]:
    """Everything but the host."""
    findings = []
    if not (math.isfinite(deployment.weight) and deployment.weight > 0):
        findings.append(Finding("weight", f"{deployment.weight!r} is not a weight.", "Give a number above 0."))
    if (
        not deployment.upstream_model
        or len(deployment.upstream_model) > 256
        or not deployment.upstream_model.isprintable()
    ):
        fix = "Give the model's name at the provider (at most 256 characters)."
        findings.append(Finding("upstream_model", f"{deployment.upstream_model[:40]!r} is not a model name.", fix))
    if not re.fullmatch(r"[a-z0-9_]{1,64}", deployment.provider):
        fix = "Use openai for every OpenAI-compatible server, else a provider's name such as anthropic."
        findings.append(Finding("provider", f"{deployment.provider[:40]!r} is not a provider.", fix))
    variable = deployment.api_key_env
    if variable is not None and not ENV_NAME.fullmatch(variable):
        # What stands there may be the key itself: it must not come back in an error or a log.
        fix = "Put the key into a variable, e.g. SMALL_KEY, and give that variable's name here."
        if LOOKS_LIKE_A_KEY.search(variable):
            findings.append(Finding("api_key_env", "this looks like a key, not like the name of a variable.", fix))
        else:
            findings.append(Finding("api_key_env", "this is not the name of an environment variable.", fix))
    elif variable is not None and variable.upper().startswith("ORBWEAVER_"):
        problem = f"{variable} belongs to the gateway itself and must not be sent to a provider."
        findings.append(Finding("api_key_env", problem, "Use a variable of its own for each provider."))
    return findings


def _split(url: str) -> SplitResult | Finding:
    """The URL's parts, or what is wrong with its form."""
    fix = "Write it like http://127.0.0.1:11434/v1."
    if len(url) > MAX_URL or not url.isprintable() or " " in url:
        return Finding("base_url", f"{url[:80]!r} is too long or holds blanks or control characters.", fix)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return Finding("base_url", f"{_without_secrets(url)!r} is not a URL ({error}).", fix)
    if parts.username is not None or parts.password is not None:
        problem = f"{_without_secrets(url)!r} carries credentials, which would be stored and shown."
        return Finding("base_url", problem, "Take them out and give the key's variable as api_key_env.")
    if parts.scheme not in ("http", "https"):
        return Finding("base_url", f"{url!r} must begin with http:// or https://.", fix)
    if not parts.hostname or port == 0:
        return Finding("base_url", f"{url!r} names no host or port.", fix)
    if parts.query or parts.fragment:
        return Finding("base_url", f"{parts.scheme}://{parts.netloc} has a query or fragment behind it.", fix)
    tail = next((tail for tail in ENDPOINT_TAILS if parts.path.rstrip("/").endswith(tail)), None)
    if tail is not None:
        return Finding("base_url", f"{url!r} ends in {tail}, which the gateway adds itself.", f"Leave out {tail}.")
    return parts


async def _check_host(
    deployment: Deployment, rules: NetworkRules, resolver: Resolver
) -> tuple[list[Finding], list[str]]:
    if not deployment.base_url:
        if deployment.provider == "openai":
            fix = "Give where it is served, e.g. http://127.0.0.1:11434/v1."
            return [Finding("base_url", "an OpenAI-compatible server needs one.", fix)], []
        return [], []
    parts = _split(deployment.base_url)
    if isinstance(parts, Finding):
        return [parts], []
    host = parts.hostname or ""
    fix = "Give the provider's own address; set allow_link_local or allow_private_networks if you mean it."
    if is_metadata_name(host) and not rules.allow_link_local:
        return [Finding("base_url", f"{host!r} is a cloud's metadata server.", fix)], []
    spelled_out = as_address(host)
    if spelled_out is None:
        try:
            addresses = await resolver(host)
        except (OSError, UnicodeError):
            return [], [f"base_url: the host {host!r} cannot be resolved now; check the spelling."]
    else:
        addresses = [spelled_out]
    reasons = [reason for address in addresses if (reason := refusal(address, rules)) is not None]
    if reasons:
        leads = "" if spelled_out is not None else f"{host!r} leads to "
        return [Finding("base_url", f"{leads}{reasons[0]}.", fix)], []
    warnings = []
    if parts.scheme == "http" and deployment.api_key_env and any(address.is_global for address in addresses):
        warnings.append(f"base_url: the key would travel unencrypted to {host}; use https.")
    if deployment.provider == "openai" and not parts.path.strip("/"):
        warnings.append(f"base_url: {deployment.base_url} has no path; most servers answer below /v1.")
    return [], warnings


def _deployment_warnings(deployment: Deployment) -> list[str]:
    warnings = []
    variable = deployment.api_key_env
    if variable is not None and ENV_NAME.fullmatch(variable) and read_secret(variable) is None:
        warnings.append(f"api_key_env: {variable} is not set here; the gateway must be started with it.")
    if deployment.provider != "openai" and find_spec("litellm") is None:
        fix = 'install it with `pip install "orbweaver-gateway[providers]"`'
        warnings.append(f"provider: {deployment.provider} is translated by litellm, which is not installed; {fix}.")
    return warnings


def _price_warnings(candidate: Candidate) -> list[str]:
    warnings = []
    if (candidate.price_in is None) != (candidate.price_out is None):
        missing = "price_in" if candidate.price_in is None else "price_out"
        warnings.append(f"{missing}: not given, so costs are not known and `auto` cannot weigh them.")
    for field in ("price_in", "price_out"):
        price = getattr(candidate, field)
        if price is not None and 0 < price < SUSPICIOUS_PRICE:
            warnings.append(f"{field}: {price!r} USD per million tokens is very little; was it meant per token?")
    return warnings


def _without_secrets(url: str) -> str:
    """The URL with whatever stands before an @ taken out, for messages."""
    return re.sub(r"//[^/]*@", "//***@", url)[:200]
