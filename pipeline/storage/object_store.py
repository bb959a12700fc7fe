"""Client of object storage at a URL: whole objects, conditional puts, and errors as QuoinErrors.

s3://bucket/path, gs://bucket/path and az://container/path by the same code (obstore, the extra ``quoin[cloud]``).
Requests that fail for a transient reason are sent again for ``REQUEST_RETRY_SECONDS``, with growing pauses.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import redact_urls

REQUEST_RETRY_SECONDS = 60.0
CREDENTIAL_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_REGION), or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the key file of an account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?!/)(.*)", re.DOTALL)  # pathlib makes s3:/ of s3://


def storage_url(location: str | Path) -> str | None:
    """``location`` as a URL without a slash at its end, or None where it is a path.

    QuoinError for a URL of another kind of storage, and for one that holds a secret.
    """
    found = _URL.fullmatch(str(location))
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2].strip("/")
    has_secret = redact_urls(str(location)) != str(location)
    if has_secret or (scheme in CREDENTIAL_HINTS and re.search("[:@]", rest.partition("/")[0])):
        raise QuoinError(
            "This URL holds a password, a key or a signature, which would be stored in the run and in logs",
            where=f"{scheme}://***",
            hint=f"leave it out; {CREDENTIAL_HINTS.get(scheme, 'name a folder instead')}",
        )
    if scheme not in CREDENTIAL_HINTS:
        known = " or ".join(f"{name}://" for name in CREDENTIAL_HINTS)
        raise QuoinError(
            "quoin does not support this kind of storage", where=location, hint=f"name a folder, or a URL with {known}"
        )
    if not rest:
        raise QuoinError("This URL names no bucket", where=location, hint=f"write {scheme}://bucket/folder")
    return f"{scheme}://{rest}"


class StoredObject(NamedTuple):
    """An object's content and its ETag, which changes with the content."""

    data: bytes
    etag: str
    modified: datetime  # by the storage's own clock


class Bucket:
    """The objects below a URL. Made anew in every process; never pickled."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = open_object_store(url)

    def read(self, name: str) -> bytes | None:
        """The content of an object; None where there is none."""
        found = self.get(name)
        return None if found is None else found.data

    def get(self, name: str) -> StoredObject | None:
        """An object with its ETag; None where there is none."""
        with translate_errors(self.url):
            try:
                got = self.store.get(name)
                return StoredObject(bytes(got.bytes()), str(got.meta["e_tag"]), got.meta["last_modified"])
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def put(self, name: str, data: bytes) -> str:
        """Put a whole object; returns its ETag."""
        with translate_errors(self.url):
            return str(self.store.put(name, data)["e_tag"])

    def upload_file(self, name: str, path: Path) -> None:
        """Put a file of any size, in parts where it is large."""
        with translate_errors(self.url):
            self.store.put(name, path)

    def download(self, name: str, path: Path) -> str | None:
        """Write an object of any size into ``path``; returns its SHA-256, or None where there is no such object."""
        digest = hashlib.sha256()
        with translate_errors(self.url):
            try:
                parts = iter(self.store.get(name).stream())
            except FileNotFoundError:
                return None
        with open(path, "wb") as file:  # what goes wrong here is this machine's
            while True:
                with translate_errors(self.url):
                    part = next(parts, None)
                if part is None:
                    return digest.hexdigest()
                digest.update(part)
                file.write(part)

    def put_if_match(self, name: str, data: bytes, etag: str | None) -> str | None:
        """Put an object if it still has ``etag`` (None: if there is none), and return its new one; else None."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with translate_errors(self.url):
            try:
                return str(self.store.put(name, data, mode={"e_tag": etag} if etag else "create")["e_tag"])
            except (AlreadyExistsError, PreconditionError):
                pass
        current = self.get(name)  # a put whose answer was lost is sent again, and then meets itself
        return current.etag if current is not None and current.data == data else None

    def copy(self, name: str, to: str) -> None:
        """Copy an object inside the storage, where it exists."""
        with translate_errors(self.url), suppress(FileNotFoundError):
            self.store.copy(name, to)

    def list_objects(self, prefix: str = "") -> list[tuple[str, int, datetime]]:
        """Name, bytes and time of all objects in the folder ``prefix``, however deep."""
        with translate_errors(self.url):
            found = self.store.list(prefix or None).collect()
        return [(str(one["path"]), int(one["size"]), one["last_modified"]) for one in found]

    def head(self, name: str) -> tuple[int, datetime] | None:
        """Bytes and time of an object; None where there is none."""
        with translate_errors(self.url):
            try:
                found = self.store.head(name)
            except FileNotFoundError:
                return None
        return int(found["size"]), found["last_modified"]

    def is_empty(self) -> bool:
        """Whether no object lies here. QuoinError where the bucket itself is missing."""
        with translate_errors(self.url):
            return not next(iter(self.store.list(chunk_size=1)), [])

    def remove(self, name: str) -> None:
        """Remove an object, or all objects in the folder of that name."""
        names = [found for found, _, _ in self.list_objects(name)]
        with translate_errors(self.url), suppress(FileNotFoundError):
            self.store.delete(names or [name])


def open_object_store(url: str) -> Any:
    """The obstore store at ``url``."""
    try:
        from obstore.store import from_url
    except ImportError:
        raise QuoinError("Storage by URL needs obstore", where=url, hint='run: pip install "obstore>=0.8"') from None
    options: dict[str, Any] = {}
    if url.startswith("s3:"):
        options = _profile() if "AWS_ACCESS_KEY_ID" not in os.environ else {}
        endpoint = _endpoint()
        options |= {"endpoint": endpoint} if endpoint else {}
        options["client_options"] = {"allow_http": endpoint.startswith("http:")}
    with translate_errors(url):
        return from_url(
            url,
            retry_config={
                "max_retries": 1000,
                "retry_timeout": timedelta(seconds=REQUEST_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.2),
                    "max_backoff": timedelta(seconds=min(10.0, REQUEST_RETRY_SECONDS / 4)),
                    "base": 2,
                },
            },
            **options,
        )


def _endpoint() -> str:
    """Endpoint URL of an S3-compatible service, from the environment; empty for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _profile() -> dict[str, Any]:
    """Keys and region of the AWS profile in use (AWS_PROFILE, or default); empty where none is written down."""
    profile = os.environ.get("AWS_PROFILE", "default")
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read(os.environ.get("AWS_CONFIG_FILE") or Path.home() / ".aws" / "config", encoding="utf-8")
        if files.has_section(f"profile {profile}"):
            files.read_dict({profile: dict(files[f"profile {profile}"])})
        files.read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials", "utf-8")
        found = files[profile]
    except (configparser.Error, KeyError, UnicodeDecodeError):
        return {}
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    names |= {"aws_session_token": "session_token", "region": "region"}
    known = {ours: found[theirs] for theirs, ours in names.items() if theirs in found}
    if "AWS_REGION" in os.environ or "AWS_DEFAULT_REGION" in os.environ:
        known.pop("region", None)
    return known


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Turn errors of obstore into QuoinErrors about ``url``, but FileNotFoundError of a missing object."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise user_message(error, url) from error
    except (BaseError, OSError) as error:
        raise user_message(error, url) from error


_NO_BUCKET = re.compile("NoSuchBucket|bucket does not exist|ContainerNotFound|container does not exist", re.I)
_NO_CREDENTIALS = re.compile(
    r"169\.254\.|latest/(api/token|meta-data)|computeMetadata|MissingAccount|Account must be|token request", re.I
)
_ACCESS_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|\b40[13] (Forbidden|Unauthorized)", re.I
)
_NO_RESPONSE = re.compile(r"error sending request|timed? ?out|connect|retry_timeout|\b5\d\d ", re.I)


class StorageUnavailable(QuoinError):
    """The storage did not respond in time; further requests are not worth sending."""


def is_storage_unavailable(error: BaseException | None) -> bool:
    """Whether ``error`` is a StorageUnavailable, or was raised while one was handled."""
    while error is not None and not isinstance(error, StorageUnavailable):
        error = error.__context__
    return error is not None


def user_message(error: Exception, url: str) -> QuoinError:
    """The QuoinError for an error of the storage: what it means and what to do."""
    text, scheme = str(error), url.partition(":")[0]
    bucket = "/".join(url.split("/")[:3])
    first = re.sub(r"\s+", " ", text.partition("\n")[0])[:300]
    if _NO_BUCKET.search(text):
        return QuoinError("There is no such bucket", where=bucket, hint="make it first, or correct the URL")
    if _NO_CREDENTIALS.search(text):
        return QuoinError("No credentials for this storage were found", where=bucket, hint=CREDENTIAL_HINTS[scheme])
    if _ACCESS_DENIED.search(text):
        hint = f"check that your account may read and write there; {CREDENTIAL_HINTS[scheme]}"
        return QuoinError("The storage refuses these credentials", where=bucket, hint=hint)
    if _NO_RESPONSE.search(text):
        at = f" at {_endpoint()}" if scheme == "s3" and _endpoint() else ""
        hint = f"check {'AWS_ENDPOINT_URL and ' * bool(at)}the network, then quoin resume"
        return StorageUnavailable(
            f"The storage has not answered for {REQUEST_RETRY_SECONDS:.0f} s", where=bucket + at, hint=hint
        )
    return QuoinError(f"The storage failed: {first}", where=url, hint="check the URL, then quoin resume")
