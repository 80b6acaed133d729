#!/usr/bin/env python3
"""Prints the licences of everything that is in the program: a list of the crates, and each text once.

    release/third_party.py >THIRD-PARTY
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
GLIBC = """The program for Linux also contains the GNU C library, which is under the GNU Lesser General Public License, version 2.1
or later. The program's own source and `release/build`, which links it, are public, so that it can be linked with
another version of the library."""


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main() -> None:
    tree = cargo("tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}")
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    texts: dict[str, list[str]] = {}
    lines, missing = [], []
    for package in sorted(packages, key=lambda one: (one["name"], one["version"])):
        name = f"{package['name']} {package['version']}"
        # Crates without a source are those of this workspace.
        if (package["name"], "v" + package["version"]) not in used or package["source"] is None:
            continue
        lines.append(f"{name}: {package['license'] or 'see below'}")
        folder = pathlib.Path(package["manifest_path"]).parent
        found = [file for file in sorted(folder.iterdir()) if file.is_file() and NAMES.match(file.name)]
        if package["license_file"]:
            found.append(folder / package["license_file"])
        if not found:
            missing.append(name)
        for text in {file.read_text(encoding="utf-8", errors="replace").strip() for file in found}:
            texts.setdefault(text, []).append(name)
    if not lines:
        sys.exit("no crate was found")
    print("mtlora contains these crates. Their licences follow.\n")
    print("\n".join(lines))
    if missing:
        print("\nThe packages of these crates have no licence text; what is said above is all they say: " + ", ".join(missing))
    print("\n" + GLIBC)
    for text, names in sorted(texts.items(), key=lambda one: one[1]):
        print(f"\n{'=' * 80}\n{', '.join(names)}\n{'=' * 80}\n\n{text}")


if __name__ == "__main__":
    main()
