"""Amazon's way to sign in (SigV4): whose credentials, for which region and service, and what its
refusals mean.

The only importer of boto3, which finds credentials where Amazon's own programs look (variables,
profiles, roles of web identities, containers and machines) and refreshes those that end. The
signing itself is the client library's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from enrich.errors import (
    AccessRefused,
    EnrichError,
    ServerUnavailable,
    SettingsError,
    package_missing,
)

if TYPE_CHECKING:
    from enrich.settings import Settings

#: A host that Amazon gives tells its region: search-x.eu-west-1.es.amazonaws.com,
#: x.aos.eu-west-1.on.aws.
_REGION = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-\d+)\.(?:es|aoss|on)\.")
_SERVERLESS = re.compile(r"\.aoss\.amazonaws\.com(?:\.cn)?$")


class Signing:
    """Credentials for the client's signer, and what they are for."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError: boto3, the region or the right service is missing."""
        self.service = settings.opensearch_aws_service
        hosts = [node.host for node in settings.opensearch_nodes]
        serverless = any(map(_SERVERLESS.search, hosts))
        if serverless and self.service != "aoss":
            raise SettingsError("OPENSEARCH_AWS_SERVICE must be aoss for OpenSearch Serverless")
        # Before the setting: machines in another region have that region's variable.
        of_host = next((found[1] for host in hosts if (found := _REGION.search(host))), "")
        self._session = _session()
        region = of_host or settings.aws_region or self._session.region_name or ""
        if not re.fullmatch(r"[a-z0-9-]{1,40}", region):
            raise SettingsError(
                "AWS_REGION: OPENSEARCH_AUTH=aws needs the region of the domain, such as eu-west-1"
            )
        self.region = region
        self._credentials: Any = None
        self._key: str | None = None

    def get_frozen_credentials(self) -> Any:
        """What a request is signed with, as botocore wants it.

        Raises:
            AccessRefused: there are none, or what gives them refuses.
            ServerUnavailable: what gives them is away.
        """
        from botocore import exceptions

        try:
            if self._credentials is None:
                self._credentials = self._session.get_credentials()
            if self._credentials is None:
                raise AccessRefused(
                    "no AWS credentials were found: give the workers a role, AWS_PROFILE, or "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in their environment (.env alone "
                    "is not looked at)"
                )
            frozen = self._credentials.get_frozen_credentials()
        except (
            exceptions.HTTPClientError,
            exceptions.CredentialRetrievalError,
            exceptions.MetadataRetrievalError,
        ) as error:
            raise ServerUnavailable(
                f"AWS credentials cannot be had now ({type(error).__name__}): check that what "
                "gives them (the role's service, AWS_PROFILE's program) answers"
            ) from None
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:60]
            raise AccessRefused(
                f"AWS refuses {error.operation_name} ({code}): check the role that the workers "
                "are to have"
            ) from None
        except exceptions.BotoCoreError as error:
            raise AccessRefused(
                f"AWS credentials cannot be used ({type(error).__name__}): check AWS_PROFILE and "
                "the files that it names"
            ) from None
        self._key = f"{frozen.access_key}:{frozen.token}"
        return frozen

    def renew(self) -> bool:
        """Look for credentials again, as after a file of them was replaced; whether they differ."""
        before = self._key
        self._session, self._credentials = _session(), None
        self.get_frozen_credentials()
        return self._key != before

    @staticmethod
    def is_expired(said: tuple[Any, str]) -> bool:
        """Whether an answer refuses credentials that were once right."""
        return bool(_EXPIRED.search(_message(*said)))


def _session() -> Any:
    try:
        import boto3
    except ImportError:
        raise package_missing("OPENSEARCH_AUTH=aws needs boto3", "aws") from None
    from botocore import exceptions

    try:
        return boto3.Session()
    except exceptions.BotoCoreError as error:
        raise SettingsError(
            f"OPENSEARCH_AUTH=aws: AWS_PROFILE or its file cannot be used ({type(error).__name__})"
        ) from None


_EXPIRED = re.compile(r"token.{0,30} expired|token.{0,40} invalid|ExpiredToken", re.I)

#: Words of a 403, and what is to be done.
_REFUSALS = tuple(
    (re.compile(words, re.I), sentence)
    for words, sentence in (
        (
            r"Signature (?:expired|not yet current)|not a valid date",
            "the signature is out of time: set the clock of this host",
        ),
        (
            _EXPIRED.pattern,
            "the AWS credentials are expired or unknown: renew them, or give the workers a role, "
            "whose credentials are renewed by themselves",
        ),
        (
            r"signature we calculated does not match|InvalidSignature",
            "the signature is wrong: check AWS_SECRET_ACCESS_KEY, AWS_REGION and "
            "OPENSEARCH_AWS_SERVICE, and that no proxy changes Host or the path",
        ),
        (
            r"Credential should be scoped",
            "the signature is for another region or service: check AWS_REGION and "
            "OPENSEARCH_AWS_SERVICE",
        ),
        (
            r"not authorized to perform|explicit deny|no (?:identity|resource)-based policy",
            "the AWS credentials are known and may not do this: allow es:ESHttp* (aoss:APIAccessAll"
            " for Serverless) in their policy and in the domain's access policy",
        ),
        (
            r"Missing Authentication Token",
            "the request came without a signature: check what stands before it",
        ),
    )
)


def refusal(status: int, info: Any, text: str, url: str) -> EnrichError | None:
    """What Amazon's own refusal means; None for an answer of OpenSearch itself."""
    message = _message(info, text)
    for words, sentence in _REFUSALS:
        if words.search(message):
            return AccessRefused(f"OpenSearch at {url} (AWS, {status}): {sentence}")
    return None


def _message(info: Any, text: str) -> str:
    """Amazon's own message; "" for OpenSearch's errors, which are told apart by their type."""
    if not isinstance(info, dict):
        return text[:1000]
    if "error" in info:
        return ""
    return str(info.get("message") or info.get("Message") or "")[:1000]
