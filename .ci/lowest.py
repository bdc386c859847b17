"""Print `name==version` for the lower bound of every dependency, for a constraints file."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
for requirement in wanted:
    if "python_version" in requirement and sys.version_info >= (3, 14):
        continue
    if found := re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement):
        print(f"{found[1]}=={found[2]}")
