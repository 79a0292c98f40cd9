//! Models that are split into several files, and files that do not belong together.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gguf::{
    GgufError, Header, Split, Value, files_of,
    tiny::TinyModel,
    write::{Writer, split},
};
use tempfile::TempDir;

/// A model in one file, and the same in three.
struct Model(TempDir);

impl Model {
    /// `tensors` is how many the files get.
    fn split(tensors: [usize; 3]) -> Self {
        let model = Self(tempfile::tempdir().expect("a temporary folder"));
        TinyModel::default().write(&model.whole()).expect("written");
        split(&model.whole(), &model.part(1), &tensors).expect("split");
        model
    }

    fn whole(&self) -> PathBuf {
        self.0.path().join("whole.gguf")
    }

    fn part(&self, number: u32) -> PathBuf {
        self.0.path().join(format!("tiny-{number:05}-of-00003.gguf"))
    }

    /// Why it is refused once another second file lies there, which says this of itself. It is as it was made.
    fn refused_with(&self, split: Option<Split>, tensors: &[&str]) -> String {
        let mut file = Writer::default();
        split.iter().for_each(|split| file.split(*split));
        tensors.iter().for_each(|name| file.tensor_f32(*name, &[1], &[0.0]));
        file.write(&self.part(2)).expect("written");
        let error = Header::read(&self.part(1)).expect_err("refused");
        assert!(!error.is_damage() && error.names_cure(), "{error}");
        error.to_string()
    }
}

fn bytes_of(header: &Header, name: &str) -> Vec<u8> {
    let tensor = &header.tensors[name];
    let file = fs::read(&header.files[tensor.file].path).expect("read");
    file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize].to_vec()
}

#[test]
fn files_are_read_as_the_one_that_they_were_split_from() {
    for tensors in [[9, 30, 0], [0, 40, 0]] {
        let model = Model::split(tensors);
        let (one, several) = (Header::read(&model.whole()).unwrap(), Header::read(&model.part(1)).unwrap());
        assert_eq!(
            several.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>(),
            [1, 2, 3].map(|n| model.part(n))
        );
        let of_first = several.tensors.values().filter(|tensor| tensor.file == 0);
        assert_eq!(of_first.count(), tensors[0]);
        assert!(one.metadata.iter().all(|(key, value)| several.metadata.get(key) == Some(value)));
        assert_eq!(one.parts().unwrap().layer_costs(), several.parts().unwrap().layer_costs());
        assert!(one.tensors.keys().eq(several.tensors.keys()));
        assert!(one.tensors.keys().all(|name| bytes_of(&one, name) == bytes_of(&several, name)));
    }
}

#[test]
fn ranges_count_over_all_files_and_any_file_leads_to_the_others() {
    let model = Model::split([9, 30, 0]);
    let header = Header::read_without_arrays(&model.part(3)).unwrap();
    assert_eq!(header.tensors, Header::read(&model.part(1)).unwrap().tensors);
    let joined: Vec<u8> = header.files.iter().flat_map(|file| fs::read(&file.path).unwrap()).collect();
    assert_eq!(header.bytes(), joined.len() as u64);
    for (name, tensor) in &header.tensors {
        let range = header.range(tensor);
        assert_eq!(joined[range.start as usize..range.end as usize], bytes_of(&header, name), "{name}");
    }
    let paths = [1, 2, 3].map(|number| model.part(number));
    assert_eq!(files_of(&paths[1]).unwrap(), paths);
    assert_eq!(files_of(&model.whole()).unwrap(), [model.whole()]);
    let alone = Header::read_one_file(&paths[1]).unwrap();
    assert_eq!((alone.tensors.len(), alone.split().unwrap().map(|split| split.number)), (30, Some(1)));
}

#[test]
fn a_file_that_is_missing_or_cut_is_named() {
    let model = Model::split([0, 40, 0]);
    let cut = fs::read(model.part(3)).unwrap();
    fs::write(model.part(3), &cut[..cut.len() - 40]).unwrap();
    let error = Header::read(&model.part(1)).unwrap_err();
    assert!(error.is_damage() && error.of_file(&model.part(1)).0 == model.part(3), "{error}");
    let error = error.to_string();
    assert!(error.starts_with(&format!("{}: the file is truncated", model.part(3).display())), "{error}");
    fs::remove_file(model.part(2)).unwrap();
    let error = Header::read(&model.part(1)).unwrap_err();
    let missing = model.part(2).display().to_string();
    assert!(matches!(&error, GgufError::NoFile { path, count: 3 } if *path == missing), "{error}");
    assert!(matches!(Header::read(&model.part(2)), Err(GgufError::Io { .. })), "the file that is named");
}

#[test]
fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    let model = Model::split([0, 40, 0]);
    fs::remove_file(model.part(2)).unwrap();
    assert!(Command::new("mkfifo").arg(model.part(2)).status().unwrap().success());
    assert!(matches!(Header::read(&model.part(1)), Err(GgufError::NoFile { .. })));
}

#[test]
fn files_of_another_split_are_refused() {
    let model = Model::split([9, 30, 0]);
    let count = Header::read(&model.whole()).unwrap().tensors.len() as u32;
    let right = Split { number: 1, count: 3, tensors: count };
    for (split, said) in [
        (None, "split.count is missing"),
        (Some(Split { number: 2, ..right }), "split.no is 2"),
        (Some(Split { count: 4, ..right }), "split.count is 4"),
        (Some(Split { tensors: 7, ..right }), "split.tensors.count is 7"),
    ] {
        let error = model.refused_with(split, &[]);
        assert!(error.starts_with(&model.part(2).display().to_string()) && error.contains(said), "{error}");
    }
    let twice = model.refused_with(Some(right), &["token_embd.weight"]);
    assert!(twice.contains("tensor token_embd.weight is in two files"), "{twice}");
    let lost = model.refused_with(Some(right), &["another"]);
    assert!(lost.contains(&format!("split.tensors.count is {count}, the files have")), "{lost}");
}

#[test]
fn numbers_that_no_model_has_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, entries: &[(&str, Value)]| {
        let mut file = Writer::default();
        entries.iter().for_each(|(key, value)| file.metadata(*key, value.clone()));
        let path = folder.path().join(name);
        file.write(&path).unwrap();
        Header::read(&path).unwrap_err().to_string()
    };
    let said = |number: u16, count: u16, tensors: i32| {
        let name = format!("m-{:05}-of-{count:05}.gguf", u32::from(number) + 1);
        let (number, count, tensors) = (Value::U16(number), Value::U16(count), Value::I32(tensors));
        refused(&name, &[("split.no", number), ("split.count", count), ("split.tensors.count", tensors)])
    };
    assert!(said(0, 65535, 1).contains("split.count is 65535, more than the 1024"), "{}", said(0, 65535, 1));
    assert!(said(3, 3, 1).contains("split.no is 3, more than the 2"), "{}", said(3, 3, 1));
    assert!(said(0, 2, i32::MAX).contains("split.tensors.count is 2147483647"), "{}", said(0, 2, i32::MAX));
    assert!(said(0, 2, -1).contains("split.tensors.count must be a whole number"), "{}", said(0, 2, -1));
    let lone = refused("m-00001-of-00002.gguf", &[("split.count", Value::U16(2))]);
    assert!(lone.contains("split.no is missing"), "{lone}");
    let whole = ("split.no", Value::U16(0));
    let named = refused(
        "model.gguf",
        &[whole, ("split.count", Value::U16(2)), ("split.tensors.count", Value::I32(0))],
    );
    assert!(named.contains("must end in -00001-of-00002.gguf"), "{named}");
}

#[test]
fn what_was_joined_again_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("joined.gguf");
    let mut file = Writer::default();
    file.metadata("split.count", Value::U16(0));
    file.write(&path).unwrap();
    assert_eq!(Header::read(&path).unwrap().files.len(), 1);
    let none: [&[u8]; 0] = [];
    assert!(Header::from_bytes(&none).is_err());
    let bytes = fs::read(Path::new(&path)).unwrap();
    assert!(
        matches!(Header::from_bytes(&[&bytes, &bytes]), Err(GgufError::Missing(key)) if key == "split.count")
    );
}
