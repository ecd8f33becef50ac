"""The keys that sign dead letters, by reference."""

from __future__ import annotations

from typing import Final

from transforms.adapters.secrets import Secret
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.webhooks.signatures import parse_keys

# Longer than for webhooks' secrets: the stage itself waits while the keys are read, from AWS for some seconds at most.
_REFRESH_S: Final = 300.0


def letter_signer(reference: str | None) -> LetterSigner:
    """A signer with the keys of a reference, of the form of ``parse_keys``; without a reference one without keys.

    Raises:
        SecretError: the keys cannot be read, or have another form.
    """
    if reference is None:
        return LetterSigner()
    secret = Secret(reference, parse_keys, _REFRESH_S)
    secret.text()
    return LetterSigner(lambda: parse_keys(secret.text()))
