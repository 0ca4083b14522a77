"""Translate template.yaml as CloudFormation would: run by the Python of requirements/template.txt.

    python translate.py TEMPLATE > translated.json

An event property that SAM does not know is an error here, and nowhere else offline.
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
    """Print what CloudFormation is given."""
    template = yaml_parse(path.read_text())
    for resource in template["Resources"].values():
        if "CodeUri" in resource.get("Properties", {}):
            # What sam deploy writes there once it has uploaded the bundle.
            resource["Properties"]["CodeUri"] = "s3://bucket/bundle.zip"
    session = boto3.Session(region_name="us-east-1")
    translated = Translator({}, Parser(), None, session).translate(template, {})
    json.dump(translated, sys.stdout, indent=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
