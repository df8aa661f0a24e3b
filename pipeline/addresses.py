"""Secrets in addresses: refused where they are written, taken out of whatever is printed or stored."""

import re

HIDDEN = "***"
SECRET_NAME = re.compile(
    r"token|secret|passw|pwd|(^|[^a-z])pass([^a-z]|$)|auth(?!or(?!i))|cred|sig(nature)?([^a-z]|$)|"
    r"(api|access|account|private|rl|user|license|aws)[^a-z]*key|(^|[^a-z])key([^a-z]|$)|"
    r"session|jwt|cookie|bearer|policy",
    re.IGNORECASE,
)
LONG_VALUE = re.compile(r"[\w+/=.~%-]{40,}")  # what a longer value says is not meant to be read
ADDRESS = re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*:)?//[^\s'\"<>]+", re.IGNORECASE)
USER = re.compile(r"(//)[^/?#\s]*@")
FIELD = re.compile(r"([?&;#])([^=&;#\s]*)=([^&;#\s]*)")


def problem(text: str) -> str | None:
    """What is wrong with an address that holds a user name, a password or a token; None if it holds none."""
    if not (found := ADDRESS.search(text)):
        return None
    address, shown = found[0], without_secrets(text)
    if USER.search(address):
        return (
            f"{shown!r} holds a user name or password, which would be stored with every result; "
            "leave them out and write them into ~/.netrc: machine <host> login <user> password <password>"
        )
    if without_secrets(address) != address:
        return (
            f"{shown!r} holds a token, which would be stored with every result; leave it out and give it "
            "in the environment variable WSOL_DOWNLOAD_QUERY, as in WSOL_DOWNLOAD_QUERY='token=...'"
        )
    return None


def without_secrets(text: str) -> str:
    """`text`, with what is secret in its addresses replaced by ***: user:password@ and tokens."""
    return ADDRESS.sub(lambda found: _hidden(found[0]), text)


def _hidden(address: str) -> str:
    return FIELD.sub(_hidden_field, USER.sub(rf"\1{HIDDEN}@", address))


def _hidden_field(found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    secret = value and (SECRET_NAME.search(name) or LONG_VALUE.fullmatch(value))
    return f"{mark}{name}={HIDDEN if secret else value}"
