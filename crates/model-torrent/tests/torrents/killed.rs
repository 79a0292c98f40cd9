//! A process that is killed in the middle of writing.

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use model_torrent::{PieceIndex, Store};

use crate::{PIECE, hashing, numbers, torrent};

/// Where the one to be killed writes.
const FOLDER: &str = "KILLED_STORE_FOLDER";
const LENGTHS: [usize; 2] = [20 * PIECE, 20 * PIECE - 99];

/// Not a test: what the other one kills. It writes all pieces and says so.
#[test]
#[ignore = "it is started by the test below"]
fn writes_until_it_is_killed() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let (metainfo, pieces) = torrent(&LENGTHS);
    let store = Store::open(&folder, metainfo.clone(), &hashing()).unwrap();
    for piece in numbers(&metainfo).filter(|piece| !store.has(*piece)).collect::<Vec<_>>() {
        store.write(piece, &pieces[piece.0 as usize]).unwrap();
        println!("\nwrote {piece}");
        if piece.0 % 3 == 2 {
            store.sync().unwrap();
        }
    }
}

#[test]
fn what_a_killed_process_wrote_is_here_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (metainfo, pieces) = torrent(&LENGTHS);
    let mut wrote = vec![];
    for kill_after in [1, 2, 5, 9, 14] {
        let mut killed = Command::new(env::current_exe().unwrap())
            .args(["--exact", "killed::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(killed.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.filter_map(|line| line.strip_prefix("wrote ")?.parse::<u32>().ok());
        wrote.extend(told.take(kill_after));
        killed.kill().unwrap();
        killed.wait().unwrap();

        let store = Store::open(folder.path(), metainfo.clone(), &hashing()).unwrap();
        assert!(wrote.iter().all(|piece| store.has(PieceIndex(*piece))), "{wrote:?} of {:?}", store.here());
        for piece in store.here().iter() {
            let expected = &pieces[piece.0 as usize];
            assert_eq!(&store.read(piece, 0..expected.len() as u32).unwrap(), expected);
        }
    }
    assert_eq!(wrote.len(), 31, "each began where the one before it was killed");
}
