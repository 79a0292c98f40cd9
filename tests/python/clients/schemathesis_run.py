"""schemathesis over /openapi.json of a gateway: no 5xx, and answers as the document has them."""

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

from steps import MODEL, URL, run_steps, step

HERE = pathlib.Path(__file__).parent
SCHEMATHESIS = pathlib.Path(sys.executable).with_name("schemathesis")
CASES = 500
SEED = 1


@step
def cases_of_all_operations():
    document = json.load(urllib.request.urlopen(f"{URL}/openapi.json", timeout=10))
    # Operations without a body have one case each, whatever is asked for.
    with_a_body = sum("post" in methods for methods in document["paths"].values())
    each = -(-CASES // with_a_body)
    command = [SCHEMATHESIS, "run", f"{URL}/openapi.json", "--phases", "fuzzing", "--max-examples", str(each)]
    command += ["--seed", str(SEED), "--checks", "not_a_server_error,response_schema_conformance"]
    command += ["--continue-on-failure", "--request-timeout", "60", "--generation-database", "none", "--no-color"]
    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE), "MODEL": MODEL}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=hooks)
    print(ran.stdout, flush=True)
    assert ran.returncode == 0, f"faults, see above {ran.stderr[-500:]}"


run_steps()
