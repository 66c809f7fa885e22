//! Files of each kind, as people write them.

use std::io::Write;

use tempfile::TempDir;

use super::*;

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
    TensorMetadata { name: name.into(), datatype: datatype.into(), shape: shape.to_vec() }
}

fn metadata(inputs: &[TensorMetadata]) -> ModelMetadata {
    ModelMetadata { inputs: inputs.to_vec(), ..ModelMetadata::default() }
}

/// The contents of `files`, each `NAME=FILE` or `FILE`, in `folder`.
fn read(
    folder: &TempDir,
    files: &[&str],
    metadata: Option<&ModelMetadata>,
    batch: Option<i64>,
) -> Result<Vec<Content>, String> {
    contents("m", metadata, &Sources { batch, ..sources(folder, files) })
        .map_err(|error| format!("{error:#}"))
}

/// `files` in `folder`, and nothing else.
fn sources(folder: &TempDir, files: &[&str]) -> Sources {
    let file = |text: &&str| {
        let file: File = text.parse().unwrap();
        File { path: folder.path().join(file.path), ..file }
    };
    Sources {
        files: files.iter().map(file).collect(),
        shapes: vec![],
        ranges: vec![],
        string_lengths: vec![],
        batch: None,
        inputs: vec![],
        distinct: 1,
        as_text: false,
        scale: Default::default(),
        seed: 0,
    }
}

#[track_caller]
fn tensors(content: &Content) -> &[Tensor] {
    match content {
        Content::Tensors(tensors) => tensors,
        Content::Body(_) => panic!("a body"),
    }
}

#[test]
fn whole_requests_are_kept_as_they_are() {
    let folder = folder(&[
        ("a.json", br#" {"inputs": [], "x": 1} "#),
        ("b.jsonl", b"{\"inputs\":[]}\n\n{\"inputs\":[1]}\n"),
        ("c.jsonl", b"[1]\n"),
        ("d.json", b"{}"),
        ("e.json", b"[]"),
    ]);
    let bodies = |files: &[&str]| {
        read(&folder, files, None, None).map(|contents| {
            contents
                .into_iter()
                .map(|content| match content {
                    Content::Body(body) => String::from_utf8(body.to_vec()).unwrap(),
                    Content::Tensors(_) => panic!("tensors"),
                })
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(bodies(&["a.json"]).unwrap(), [r#"{"inputs": [], "x": 1}"#]);
    assert_eq!(bodies(&["b.jsonl"]).unwrap(), [r#"{"inputs":[]}"#, r#"{"inputs":[1]}"#]);
    assert!(bodies(&["c.jsonl"]).unwrap_err().contains("is no V2 request"));
    assert!(bodies(&["d.json"]).unwrap_err().contains("without \"inputs\""));
    assert!(bodies(&["e.json"]).unwrap_err().contains("e.json holds no V2 request; write {\"inputs\""));
    assert!(bodies(&["none.json"]).unwrap_err().contains("cannot read"));
}

#[test]
fn the_rows_of_arrays_are_requests_with_or_without_metadata() {
    let folder = folder(&[
        ("x.npy", &npy("|u1", "(4, 2)", &[0, 1, 2, 3, 4, 5, 6, 7])),
        ("y.npy", &npy("|i1", "(4,)", &[9, 8, 7, 6])),
        ("z.npy", &npy("|i1", "(3,)", &[9, 8, 7])),
    ]);
    let rows = read(&folder, &["x=x.npy", "y=y.npy"], None, None).unwrap();
    assert_eq!(rows.len(), 4);
    let [x, y] = tensors(&rows[2]) else { panic!("two inputs") };
    assert_eq!((x.to_vec::<u8>().unwrap(), &x.shape[..]), (vec![4, 5], &[1, 2][..]));
    assert_eq!((y.to_vec::<i8>().unwrap(), &y.shape[..]), (vec![7], &[1][..]));
    let model = metadata(&[input("x", "UINT8", &[-1, 2])]);
    assert_eq!(read(&folder, &["x.npy"], Some(&model), Some(2)).unwrap().len(), 2);
    assert!(read(&folder, &["x.npy"], None, None).unwrap_err().contains("NAME=FILE.npy"));
    let uneven = read(&folder, &["x=x.npy", "z=z.npy"], None, None).unwrap_err();
    assert!(uneven.contains("\"x\" has 4 rows, but \"z\" has 3"), "{uneven}");
    let two = metadata(&[input("x", "UINT8", &[-1, 2]), input("mask", "UINT8", &[-1, 2])]);
    let missing = read(&folder, &["x=x.npy"], Some(&two), None).unwrap_err();
    assert!(missing.contains("also takes input \"mask\""), "{missing}");
    let twice = read(&folder, &["x=x.npy", "x=x.npy"], None, None).unwrap_err();
    assert!(twice.contains("given twice"), "{twice}");
}

#[test]
fn the_arrays_of_an_npz_have_their_names() {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, value) in [("x", 1_u8), ("y", 2)] {
        let method = zip::CompressionMethod::Deflated;
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(&npy("|u1", "(2, 1)", &[value; 2])).unwrap();
    }
    let folder = folder(&[("a.npz", &archive.finish().unwrap().into_inner()), ("b.npz", b"no")]);
    let rows = read(&folder, &["a.npz"], None, None).unwrap();
    let names: Vec<_> = tensors(&rows[1]).iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!((rows.len(), names), (2, vec!["x", "y"]));
    assert!(read(&folder, &["b.npz"], None, None).unwrap_err().contains("no .npz file"));
}

/// A few kilobytes that are a megabyte, compressed.
#[test]
fn a_small_file_does_not_become_a_large_one() {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = zip::CompressionMethod::Deflated;
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for name in ["x.npy", "y.npy"] {
        archive.start_file(name, options).unwrap();
        archive.write_all(&npy("|u1", "(1, 1048576)", &vec![0; 1 << 20])).unwrap();
    }
    let file = archive.finish().unwrap().into_inner();
    assert!(file.len() < 10_000, "{}", file.len());
    assert_eq!(members(file.clone(), 3 << 20).unwrap().len(), 2);
    for limit in [1 << 20, (2 << 20) - 1] {
        let error = members(file.clone(), limit).unwrap_err().to_string();
        assert!(error.contains("1 GiB"), "{error}");
    }
}

#[test]
fn a_folder_of_images_is_a_request_for_each() {
    let png = |level| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::GrayImage::from_pixel(4, 4, image::Luma([level]));
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let folder = folder(&[("b.png", &png(7)), ("a.png", &png(5)), ("notes.txt", b"")]);
    let model = metadata(&[input("x", "UINT8", &[-1, 2, 2])]);
    let file = File { name: None, path: folder.path().to_owned() };
    let text = file.path.display().to_string();
    let images = read(&folder, &[&text], Some(&model), None).unwrap();
    let first: Vec<u8> =
        images.iter().map(|content| tensors(content)[0].to_vec::<u8>().unwrap()[0]).collect();
    assert_eq!(first, [5, 7], "in the order of their names");
    let batch = read(&folder, &[&text], Some(&model), Some(2)).unwrap();
    assert_eq!(tensors(&batch[0])[0].shape, [2, 2, 2]);
    assert!(read(&folder, &[&text], None, None).unwrap_err().contains("does not tell the inputs"));
}

#[test]
fn answers_are_read_from_json_and_arrays() {
    let answer = r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[0.5]}]}"#;
    let folder = folder(&[
        ("one.json", answer.as_bytes()),
        ("two.jsonl", format!("{answer}\n{answer}\n").as_bytes()),
        ("y.npy", &npy("|u1", "(3, 2)", &[1, 2, 3, 4, 5, 6])),
        ("bad.jsonl", b"{}\n"),
    ]);
    let read = |name: Option<&str>, file: &str| {
        let file = File { name: name.map(str::to_owned), path: folder.path().join(file) };
        expected(&[file], None).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(read(None, "one.json").unwrap()[0][0].as_f32().unwrap(), [0.5]);
    assert_eq!(read(None, "two.jsonl").unwrap().len(), 2);
    let rows = read(Some("y"), "y.npy").unwrap();
    assert_eq!((rows.len(), rows[2][0].to_vec::<u8>().unwrap()), (3, vec![5, 6]));
    assert!(read(None, "bad.jsonl").unwrap_err().contains("line 1 is no V2 answer"));
    assert!(read(None, "y.npy").unwrap_err().contains("NAME=FILE.npy"));
}

#[test]
fn a_bad_line_is_named() {
    let request = br#"{"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":[1]}]}"#;
    let lines = [request.as_slice(), b"\n\nnot json\n"].concat();
    let answers = b"{\"outputs\":[]}\n{\"outputs\":1}\n";
    let folder = folder(&[("a.jsonl", &lines), ("b.jsonl", answers), ("c.jsonl", b"\n")]);
    assert!(read(&folder, &["a.jsonl"], None, None).unwrap_err().contains("line 3"));
    let answer = |name: &str| {
        let file = File { name: None, path: folder.path().join(name) };
        format!("{:#}", expected(&[file], None).unwrap_err())
    };
    let error = answer("b.jsonl");
    assert!(error.contains("b.jsonl: line 2 is no V2 answer") && !error.contains("listening"), "{error}");
    assert!(answer("c.jsonl").contains("c.jsonl has no answer"));
}

/// The name of a file is said once, and all that could have been given.
#[test]
fn a_file_of_another_kind_is_told_what_there_is() {
    let folder = folder(&[("e.csv", b"1,2\n"), ("a.jsonl", b"{\"inputs\":[]}\n"), ("e.png", b"no")]);
    let model = metadata(&[input("x", "UINT8", &[-1, 2])]);
    let error = |file: &str| read(&folder, &[file], Some(&model), None).unwrap_err();
    for file in ["e.csv", "x=e.csv", "x=e.png", "x=none.png", "x=none.npy"] {
        let error = error(file);
        assert_eq!(error.matches(&*folder.path().to_string_lossy()).count(), 1, "{error}");
    }
    let kinds = error("e.csv");
    assert!(kinds.contains(".jsonl, .npy, .npz") && kinds.contains("a folder of images"), "{kinds}");
    assert!(error("x=a.jsonl").contains("it stands alone"));
}

#[test]
fn whole_requests_make_no_batches() {
    let folder = folder(&[("a.json", br#"{"inputs": []}"#)]);
    let error = read(&folder, &["a.json"], None, Some(8)).unwrap_err();
    assert!(error.contains("sent as they are: leave out --batch"), "{error}");
}

/// Of several models each takes the files that are for it; what is for none is told.
#[test]
fn a_file_for_another_model_is_passed_over() {
    let rows = npy("|u1", "(2, 2)", &[0, 1, 2, 3]);
    let folder = folder(&[("x.npy", &rows), ("y.npy", &rows)]);
    let model = metadata(&[input("x", "UINT8", &[-1, 2])]);
    let with = |files: &[&str]| Sources { inputs: vec!["x".into(), "y".into()], ..sources(&folder, files) };
    let of = |files: &[&str]| contents("m", Some(&model), &with(files)).map_err(|error| format!("{error:#}"));
    let names: Vec<_> = of(&["x=x.npy", "y=y.npy"]).unwrap().iter().map(|made| tensors(made).len()).collect();
    assert_eq!(names, [1, 1]);
    assert!(of(&["x=x.npy", "z=y.npy"]).unwrap_err().contains("has no input \"z\"; it has x"));
    assert!(of(&["y=y.npy"]).unwrap_err().contains("also takes input \"x\""));
}
