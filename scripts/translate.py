"""Translates template.yaml as CloudFormation would; runs in the environment of the template.

    python translate.py TEMPLATE > translated.json

Only this reports an event property that SAM does not know, without asking AWS. A function's code
is the bundle's zip in a bucket named "bucket", as sam deploy writes it after the upload.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import boto3  # type: ignore[import-untyped,unused-ignore]
from samtranslator.parser.parser import Parser  # type: ignore[import-not-found]
from samtranslator.translator.translator import Translator  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]


def main(path: Path) -> None:
    """Print the template that CloudFormation gets."""
    template = yaml_parse(path.read_text())
    for resource in template["Resources"].values():
        if "CodeUri" in resource.get("Properties", {}):
            archive = Path(resource["Properties"]["CodeUri"]).name
            resource["Properties"]["CodeUri"] = f"s3://bucket/{archive}"
    session = boto3.Session(region_name="us-east-1")
    translated = Translator({}, Parser(), None, session).translate(template, {})
    json.dump(translated, sys.stdout, indent=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
