"""Packs a folder into a .zip: zip.py FOLDER FILE. The same contents give the same bytes: members are in order, and all
have the time in SOURCE_DATE_EPOCH. Only the standard library.
"""

import os
import sys
import time
import zipfile
from pathlib import Path


def main():
    folder, file = Path(sys.argv[1]), sys.argv[2]
    # Zip has no time before 1980.
    when = max(time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6], (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), when)
            # Told as made on Unix, whoever packs, with what may be run.
            member.create_system = 3
            member.external_attr = (0o100755 if path.suffix == ".exe" else 0o100644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, path.read_bytes())


if __name__ == "__main__":
    main()
