"""Clients of object stores: credentials in each provider's own ways, regions, time-outs and retries.

S3 takes keys from the variables AWS_*, from a profile in `~/.aws/credentials`, or from the machine's role; Google from
GOOGLE_* or its application default credentials; Azure from AZURE_STORAGE_*. Without any, reads are not signed.
"""

from __future__ import annotations

import json
import os
import re
import socket
from configparser import ConfigParser
from datetime import timedelta
from functools import lru_cache
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore.store

from volseg.errors import TargetError

if TYPE_CHECKING:
    from obstore.store import RetryConfig

WRITE_SECONDS = 35.0
"""The longest that a write of an object takes, retries included."""
READ_SECONDS = 120.0
_SILENCE = timedelta(seconds=30)
"""A server that sends nothing for so long has stalled."""
_URL = re.compile(r"(?P<root>(?P<scheme>s3|gs|az|memory)://(?P<bucket>[^/?#]+))(?:/(?P<key>[^?#]*))?")
_RETRIES = re.compile(r"Error performing \w+ \S+ in \S+( - |, after .*? - )", re.DOTALL)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_METADATA_SERVICE = ("169.254.169.254", 80)
_GIVEN = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
           "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH",
           "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SKIP_SIGNATURE", "STORAGE_EMULATOR_HOST"),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN",
           "AZURE_STORAGE_TOKEN", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE",
           "AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR"),
}  # fmt: skip
"""Variables that state credentials, or that there are none to use."""
_WAYS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile with keys",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}


def is_object_url(location: str) -> bool:
    """Whether a location is in an object store that volseg writes to.

    >>> is_object_url("s3://bucket/map.zarr"), is_object_url("https://host/map.zarr"), is_object_url("map.zarr")
    (True, False, False)
    """
    return _URL.fullmatch(location) is not None


def split_url(location: str) -> tuple[str, str]:
    """Root and key of the URL of an object or a folder; of several slashes one counts.

    >>> split_url("s3://bucket/maps//a.zarr/")
    ('s3://bucket', 'maps/a.zarr')
    """
    found = _URL.fullmatch(location)
    if found is None:
        raise TargetError(f"{location} is no URL of an object store; write s3://BUCKET/NAME, gs://.. or az://..")
    return found["root"], "/".join(part for part in (found["key"] or "").split("/") if part)


@lru_cache(maxsize=64)
def reading_client(root: str, key: str = "") -> Any:
    """A client to read below a key of a bucket, kept for the life of the process; not signed without credentials."""
    if root.startswith("memory://") and not key:
        return writing_client(root)
    return _client(root, key, _has_credentials(root), READ_SECONDS, repeats=20)


@lru_cache(maxsize=16)
def writing_client(root: str) -> Any:
    """A client to read and write a bucket, kept for the life of the process; it repeats nothing itself.

    Raises:
        TargetError: there are no credentials.
    """
    scheme = root.partition("://")[0]
    if not _has_credentials(root):
        raise TargetError(f"no credentials for {root}; {_WAYS[scheme]}")
    return _client(root, "", True, WRITE_SECONDS, repeats=0)


def _client(root: str, key: str, signed: bool, seconds: float, *, repeats: int) -> Any:
    """A client whose requests end, with all retries, within some seconds."""
    found = _URL.fullmatch(root)
    assert found is not None
    scheme, bucket = found["scheme"], found["bucket"]
    if scheme == "memory":
        return obstore.store.MemoryStore()
    half = timedelta(seconds=seconds / 2)  # the last retry may begin at the end of the first half
    retry: RetryConfig = {"max_retries": repeats, "retry_timeout": half}
    client: Any = {"connect_timeout": timedelta(seconds=5), "read_timeout": min(half, _SILENCE), "timeout": half}
    options: dict[str, Any] = {"retry_config": retry, "client_options": client}
    if key:
        options["prefix"] = key
    if not signed:
        options["skip_signature"] = True
    try:
        if scheme == "s3":
            endpoint = next(
                filter(None, map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))), ""
            )
            options |= {"endpoint": endpoint} if endpoint else {"region": bucket_region(bucket) or stated_region()}
            client["allow_http"] = endpoint.startswith("http://")
            keys: dict[str, Any] = dict(profile_keys() if signed else {})
            return obstore.store.S3Store(bucket, **options, **keys)
        if scheme == "gs":
            return obstore.store.GCSStore(bucket, **options, **_emulated(client))
        client["allow_http"] = os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() == "true" or os.environ.get(
            "AZURE_STORAGE_ENDPOINT", ""
        ).startswith("http://")
        return obstore.store.AzureStore(bucket, **options)
    except Exception as error:  # obstore's own errors have no public root
        raise TargetError(f"cannot open {root}: {error}; check the variables of its provider") from error


def _emulated(client: dict[str, Any]) -> dict[str, Any]:
    """Options of the server that STORAGE_EMULATOR_HOST names, as Google's own libraries read it."""
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    if not host:
        return {}
    url = host if "://" in host else f"http://{host}"
    client["allow_http"] = url.startswith("http://")
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"service_account_key": json.dumps(account), "skip_signature": True}


def _has_credentials(root: str) -> bool:
    """Whether credentials are stated, in a file of the provider, or the machine may have a role."""
    scheme = root.partition("://")[0]
    if scheme == "memory" or any(os.environ.get(name) for name in _GIVEN[scheme]):
        return True
    if scheme == "s3" and profile_keys():
        return True
    if scheme == "gs" and (Path.home() / ".config/gcloud/application_default_credentials.json").is_file():
        return True
    return _is_in_a_cloud()


@lru_cache(maxsize=1)
def _is_in_a_cloud() -> bool:
    """Whether a metadata service answers at once, which gives the credentials of a machine's role."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    try:
        with socket.create_connection(_METADATA_SERVICE, timeout=0.5):
            return True
    except OSError:
        return False


def profile_keys() -> dict[str, str]:
    """Keys of the user's profile in the file of AWS; empty if variables state some, or there are none."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    names = {"access_key_id": "aws_access_key_id", "secret_access_key": "aws_secret_access_key",
             "session_token": "aws_session_token"}  # fmt: skip
    section = _aws_section("AWS_SHARED_CREDENTIALS_FILE", "credentials", os.environ.get("AWS_PROFILE", "default"))
    return (
        {name: section[key] for name, key in names.items() if key in section}
        if names["access_key_id"] in section
        else {}
    )


def stated_region() -> str:
    """Region of the variables or the user's profile of AWS."""
    profile = os.environ.get("AWS_PROFILE", "default")
    section = _aws_section("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}")
    stated = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return stated or section.get("region", "us-east-1")


def _aws_section(variable: str, name: str, section: str) -> dict[str, str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(os.environ.get(variable) or Path.home() / ".aws" / name)
        return dict(parser[section]) if section in parser else {}
    except Exception as error:  # the message may hold a line of the file
        raise TargetError(f"cannot read the profile {section} of AWS ({type(error).__name__}); check {name}") from None


@lru_cache(maxsize=64)
def bucket_region(bucket: str) -> str:
    """Region of a bucket of AWS, which S3 tells without credentials; empty if it does not answer."""
    connection = HTTPSConnection("s3.amazonaws.com", timeout=5)
    try:
        connection.request("HEAD", f"/{bucket}")
        return connection.getresponse().getheader("x-amz-bucket-region") or ""
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def reason_of(error: Exception) -> str:
    """The reason of a failure in one short line, without the retries and the inner structure that obstore adds.

    >>> reason_of(OSError("Error performing GET http://a/b in 2s - HTTP error: error sending request"))
    'the server does not answer'
    """
    text = " ".join(_RETRIES.sub("", str(error).partition("Debug source:")[0]).split())
    if "error sending request" in text:
        return "the server does not answer"
    text, found = text.partition("<")[0].rstrip(": "), _CODE.search(text)  # the rest may quote what was signed
    text += f" ({found[1]})" if found else ""
    return text if type(error).__module__.startswith("obstore") else f"{type(error).__name__}: {text}"
