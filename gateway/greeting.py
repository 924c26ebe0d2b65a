"""The first screen: what to try, for a gateway with models and for one without."""

from __future__ import annotations


def things_to_try(address: str, *, has_models: bool, question: str = "Why is the sky blue?") -> list[str]:
    """Lines that work when pasted into a shell, given the gateway's address and something its models can answer."""
    if not has_models:
        return [f"Try it:  curl {address}/v1/models"]
    ask = f'{{"model": "auto", "messages": [{{"role": "user", "content": "{question}"}}]}}'
    python = (
        "from openai import OpenAI; "
        f"print(OpenAI(base_url='{address}/v1', api_key='none').chat.completions.create("
        f"model='auto', messages=[{{'role': 'user', 'content': '{question}'}}]).choices[0].message.content)"
    )
    return [
        "Try it:",
        f"  curl {address}/v1/chat/completions -H 'content-type: application/json' -d '{ask}'",
        f'  python -c "{python}"',
        f"  orbweaver route '{question}' --url {address}",
    ]
