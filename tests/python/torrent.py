#!/usr/bin/env python3
"""A torrent of ours, judged by libtorrent: torrent.py TORRENT FOLDER INFO_HASH. Ends with "ok".

FOLDER holds the files under their names in the torrent. libtorrent (Debian: python3-libtorrent) must read the same
info-hash, find all pieces in the files, and make a torrent of the same info-hash from them itself.
"""

import argparse
import os
import time

import libtorrent as lt

# Hashing the largest file that this is run on takes seconds.
BOUND_S = 300


def checked_whole(info: lt.torrent_info, folder: str):
    """libtorrent hashes the files and has every piece."""
    quiet = {"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False}
    session = lt.session({**quiet, "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification})
    adding = lt.add_torrent_params()
    adding.ti, adding.save_path = info, folder
    # Without the flag for seeds, which would be believed.
    adding.flags = (adding.flags | lt.torrent_flags.upload_mode) & ~lt.torrent_flags.paused & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.seed_mode
    torrent = session.add_torrent(adding)
    end = time.monotonic() + BOUND_S
    while (left := end - time.monotonic()) > 0:
        session.wait_for_alert(int(left * 1000))
        for alert in session.pop_alerts():
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
                raise SystemExit(f"libtorrent: {alert.message()}")
            if isinstance(alert, lt.torrent_checked_alert):
                status = torrent.status()
                assert status.num_pieces == info.num_pieces(), f"{status.num_pieces} of {info.num_pieces()} pieces"
                assert status.is_seeding and status.progress == 1.0, str(status.state)
                return
    raise SystemExit(f"not checked in {BOUND_S} s")


def made_by_libtorrent(info: lt.torrent_info, folder: str) -> str:
    """The info-hash that libtorrent's own creator gives the files."""
    told, files = info.files(), lt.file_storage()
    # Only the torrent's own files: the folder may have others, and libtorrent puts padding between them by itself.
    for number in range(told.num_files()):
        if not told.file_flags(number) & lt.file_flags_t.flag_pad_file:
            files.add_file(told.file_path(number), told.file_size(number))
    creator = lt.create_torrent(files, info.piece_length(), lt.create_torrent.v2_only)
    lt.set_piece_hashes(creator, folder)
    return str(lt.torrent_info(lt.bencode(creator.generate())).info_hashes().v2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("torrent")
    parser.add_argument("folder")
    parser.add_argument("info_hash")
    arguments = parser.parse_args()
    info = lt.torrent_info(arguments.torrent)
    hashes = info.info_hashes()
    assert hashes.has_v2() and not hashes.has_v1(), "BitTorrent v2 only"
    assert str(hashes.v2) == arguments.info_hash, f"libtorrent reads {hashes.v2}"
    checked_whole(info, os.path.abspath(arguments.folder))
    own = made_by_libtorrent(info, os.path.abspath(arguments.folder))
    assert own == arguments.info_hash, f"libtorrent makes {own}"
    print(f"libtorrent {lt.__version__}: ok")


if __name__ == "__main__":
    main()
