"""The credentials that sign in to a cache with IAM, from wherever the SDK finds them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from asyncsync.aws.clients import NO_REGION, AwsFailed, aws_errors, region_of
from asyncsync.iam import AwsCredentials, Credentials


def session_credentials(
    env: Mapping[str, str], *, region: str | None = None, profile: str | None = None
) -> Credentials:
    """Return a function that returns the session's credentials of this moment.

    They come from the profile, the environment, SSO, or what else the SDK knows; keys in the
    environment need no SDK. The function raises AwsFailed or ConfigError.
    """
    keys = env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY")
    region_here = region_of(env, region, None)
    if find_spec("botocore") is None or (keys and region_here and not profile):
        return lambda: AwsCredentials.from_env({**env, "AWS_REGION": region_here or ""})
    import botocore.session

    with aws_errors("opening a session", "AWS"):
        session = botocore.session.Session(profile=profile)
        region = region_of(env, region, session.get_config_variable("region"))

    def credentials() -> AwsCredentials:
        with aws_errors("reading the session's credentials", "AWS"):
            found = session.get_credentials()
            frozen = None if found is None else found.get_frozen_credentials()
        if frozen is None or frozen.access_key is None or frozen.secret_key is None:
            raise AwsFailed(
                "IAM sign-in to Redis needs AWS credentials, and there are none: sign in to "
                "AWS, or pass --profile"
            )
        if region is None:
            raise AwsFailed(NO_REGION)
        return AwsCredentials(
            access_key_id=frozen.access_key,
            secret_access_key=frozen.secret_key,
            session_token=frozen.token or "",
            region=region,
        )

    return credentials
