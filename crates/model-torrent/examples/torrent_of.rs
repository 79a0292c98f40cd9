//! Makes a torrent of a model's file or parts, and says how fast: `torrent_of TORRENT THREADS FILE…`.

use std::{num::NonZeroUsize, path::PathBuf, time::Instant};

use model_torrent::{Hashing, Metainfo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(torrent), Some(threads)) = (arguments.next(), arguments.next()) else {
        return Err("torrent_of TORRENT THREADS FILE…".into());
    };
    let threads: NonZeroUsize = threads.parse()?;
    let files: Vec<_> = arguments.map(PathBuf::from).collect();
    let started = Instant::now();
    let metainfo = Metainfo::of_files(&files, &Hashing { threads, progress: &|_| {} })?;
    let seconds = started.elapsed().as_secs_f64();
    std::fs::write(torrent, metainfo.to_bytes())?;
    let layout = metainfo.layout();
    println!("{}", metainfo.info_hash());
    eprintln!(
        "{} pieces of {} KiB, {:.0} MB/s",
        layout.pieces(),
        layout.piece_length() / 1024,
        layout.total() as f64 / 1e6 / seconds
    );
    Ok(())
}
