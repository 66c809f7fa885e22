//! The rules of ARCHITECTURE.md that a program can check.
//!
//! Each rule is a function from the files of a checkout to sentences about what breaks it. It is tested twice:
//! on this checkout, and on a file made up to break it, so that no rule can go blind unnoticed.
#![forbid(unsafe_code)]

#[path = "architecture/checkout.rs"]
mod checkout;
#[path = "architecture/rust_code.rs"]
mod rust_code;

use std::collections::BTreeSet;
use std::path::Path;

use checkout::File;

/// This file, for the sentences about its lists.
const RULES: &str = "server/tests/architecture.rs";

/// Which of this workspace's packages each member may depend on, in whatever kind of dependency. Adding a name
/// here is a design decision: say why in ARCHITECTURE.md in the same change.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("server", &["model", "traffic", "inference", "ort_backend", "proto", "storage", "volley-client"]),
    ("server/model", &[]),
    ("server/traffic", &["model"]),
    ("server/inference", &["manifest", "model", "proto"]),
    ("server/inference/loom", &["loom-locks"]),
    ("server/inference/loom/locks", &[]),
    ("server/ort_backend", &["inference", "model", "proto"]),
    ("server/manifest", &[]),
    ("server/storage", &["manifest"]),
    ("mlops/statistics", &[]),
    ("mlops/rollout", &["model", "statistics", "traffic"]),
    ("clients/rust", &["proto"]),
    ("loadtest", &["proto", "volley-client"]),
    ("benches", &["inference", "model", "proto", "statistics", "traffic", "volley"]),
    ("xtask", &[]),
];

/// Names that say nothing about what is in the file.
const NAMELESS: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "misc", "shared", "manager", "managers"];

/// The only place that knows ONNX Runtime.
const KNOWS_ORT: &[&str] = &["server/ort_backend/"];

/// The only places that know the messages of the wire. The rest speaks in the nouns of `model`, and in
/// `ModelConfig`, which is also a file format.
const KNOWS_WIRE: &[&str] = &[
    "proto/",
    "clients/",
    "server/src/http",
    "server/src/grpc",
    "server/src/describe.rs",
    "server/src/cli",
    "server/tests/",
    "benches/",
    "loadtest/tests/",
    "fuzz/",
];

/// Where the messages of the wire are declared.
const SERVICE: &str = "proto/inference/grpc_service.proto";

/// The only place that knows the services of object storage.
const KNOWS_OBJECT_STORAGE: &[&str] = &["server/storage/"];

/// Modules that decide; their callers tell them the time.
const DECIDES: &[&str] = &[
    "server/manifest/src/",
    "server/model/src/",
    "server/traffic/src/",
    "server/inference/src/config",
    "server/inference/src/rate_limiter",
    "server/inference/src/repository/version_policy",
    "server/storage/src/location.rs",
    "server/storage/src/tree.rs",
    "mlops/statistics/src/",
    "mlops/rollout/src/",
    "loadtest/src/arrivals.rs",
    "loadtest/src/errors.rs",
    "loadtest/src/expect.rs",
    "loadtest/src/outcome.rs",
    "loadtest/src/recorder.rs",
    "loadtest/src/search.rs",
    "loadtest/src/slo.rs",
];

/// How a program reads the time.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", ".elapsed()"];

/// Where `unsafe` may be written: the boundary to a C library.
const MAY_BE_UNSAFE: &[&str] = &["server/ort_backend/"];

/// Bytes that a file of the repository may have.
const MAX_SIZE: u64 = 2_000_000;

/// What a reader of the repository looks for first.
const REQUIRED: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"];

fn imports(files: &[File]) -> Vec<String> {
    let members = members(files);
    let packages: Vec<&str> = members.iter().map(|member| member.package.as_str()).collect();
    let gone = MAY_IMPORT.iter().filter(|(place, _)| !members.iter().any(|member| member.place == *place));
    let mut broken: Vec<String> = gone
        .map(|(place, _)| format!("{RULES}: MAY_IMPORT lists {place}, which is no member; remove it"))
        .collect();
    for Member { place, dependencies, .. } in &members {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(listed, _)| listed == place) else {
            broken.push(format!(
                "{place}/Cargo.toml: the member has no line in MAY_IMPORT; decide what it may import, and say \
                 why in ARCHITECTURE.md"
            ));
            continue;
        };
        let ours = dependencies.iter().map(String::as_str).filter(|name| packages.contains(name));
        broken.extend(ours.filter(|name| !allowed.contains(name)).map(|name| {
            format!(
                "{place}/Cargo.toml: {place} may not import {name}, only {allowed:?}; move the code to where \
                 it may, or change MAY_IMPORT and ARCHITECTURE.md together"
            )
        }));
    }
    broken
}

/// A member of the workspace.
struct Member {
    place: String,
    package: String,
    dependencies: BTreeSet<String>,
}

fn members(files: &[File]) -> Vec<Member> {
    let manifest = |path: &str| -> Option<toml::Table> {
        files.iter().find(|file| file.path == path)?.text.as_deref()?.parse().ok()
    };
    let workspace = manifest("Cargo.toml").expect("Cargo.toml is there and is TOML");
    let places = workspace["workspace"]["members"].as_array().expect("Cargo.toml lists the members");
    let places = places.iter().filter_map(toml::Value::as_str);
    places
        .map(|place| {
            let manifest = manifest(&format!("{place}/Cargo.toml")).expect("a member has a manifest");
            let package = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
            Member { place: place.to_owned(), package, dependencies: dependencies(&manifest) }
        })
        .collect()
}

/// The packages that `manifest` depends on, under their own names: for the library, its tests and its build
/// script, on every target.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let mut names = BTreeSet::new();
    for table in tables.chain([manifest]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = table.get(kind).and_then(toml::Value::as_table);
            names.extend(dependencies.into_iter().flatten().map(|(key, dependency)| {
                dependency.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned()
            }));
        }
    }
    names
}

fn introductions(files: &[File]) -> Vec<String> {
    let silent = files
        .iter()
        .filter(|file| file.is_rust() && !file.text.as_deref().is_some_and(|text| text.starts_with("//!")));
    silent
        .map(|file| format!("{}: it does not start with a //! line; say its one story there", file.path))
        .collect()
}

fn names(files: &[File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        let path = Path::new(&file.path).with_extension("");
        let parts = path.iter().filter_map(|part| part.to_str());
        let code = file.code();
        let modules = rust_code::words(&code).zip(rust_code::words(&code).skip(1));
        let modules = modules.filter(|(keyword, _)| *keyword == "mod").map(|(_, name)| name);
        if let Some(name) = parts.chain(modules).find(|name| NAMELESS.contains(name)) {
            broken.push(format!(
                "{}: {name:?} says nothing about what it holds; name the noun, or move each part to its only caller",
                file.path
            ));
        }
    }
    broken
}

fn onnx_runtime(files: &[File]) -> Vec<String> {
    known_only_to(files, "ort", KNOWS_ORT, "go through the Backend trait")
}

fn object_storage(files: &[File]) -> Vec<String> {
    known_only_to(files, "object_store", KNOWS_OBJECT_STORAGE, "go through storage::Remote")
}

/// The files outside `places` that mention the crate `name`, and the members that depend on it.
fn known_only_to(files: &[File], name: &str, places: &[&str], instead: &str) -> Vec<String> {
    let path = format!("{name}::");
    let others = files.iter().filter(|file| !file.is_in(places));
    let knowing = others.filter(|file| rust_code::mentions(&file.code(), &path));
    let mut broken: Vec<String> = knowing
        .map(|file| format!("{}: it mentions {path}, which only {places:?} knows; {instead}", file.path))
        .collect();
    let members = members(files);
    let importing = members.iter().filter(|member| member.dependencies.contains(name));
    let others = importing.map(|member| format!("{}/", member.place));
    broken.extend(others.filter(|place| !places.contains(&place.as_str())).map(|place| {
        format!("{place}Cargo.toml: it depends on {name}, which only {places:?} knows; {instead}")
    }));
    broken
}

fn wire_types(files: &[File]) -> Vec<String> {
    let service = files.iter().find(|file| file.path == SERVICE).and_then(|file| file.text.as_deref());
    let messages: BTreeSet<&str> = service
        .expect("the service's messages are where SERVICE says")
        .lines()
        .filter_map(|line| rust_code::words(line.strip_prefix("message ")?).next())
        .collect();
    let others = files.iter().filter(|file| !file.is_in(KNOWS_WIRE));
    others
        .filter_map(|file| {
            let code = file.code();
            let message = wire_type(&code, &messages)?;
            Some(format!(
                "{}: it mentions the wire's {message}, which only {KNOWS_WIRE:?} know; speak in the nouns of \
                 server/model",
                file.path
            ))
        })
        .collect()
}

/// The first of `messages` that `code` mentions. Some, such as the statistics, are called what the domain calls
/// its own: those count when they come by the path of the wire's module.
fn wire_type<'a>(code: &'a str, messages: &BTreeSet<&str>) -> Option<&'a str> {
    let exchanged = |name: &&str| name.ends_with("Request") || name.ends_with("Response");
    let by_name = rust_code::words(code).filter(exchanged).find(|name| messages.contains(name));
    let by_path = rust_code::taken_from(code, "v2::").find_map(|taken| match taken {
        "*" => Some(taken),
        names => rust_code::words(names).find(|name| messages.contains(name)),
    });
    by_name.or(by_path)
}

fn clocks(files: &[File]) -> Vec<String> {
    let mut broken: Vec<String> = DECIDES
        .iter()
        .filter(|place| !files.iter().any(|file| file.is_in(&[place])))
        .map(|place| format!("{RULES}: DECIDES lists {place}, where nothing is; name where that code went"))
        .collect();
    for file in files.iter().filter(|file| file.is_in(DECIDES)) {
        let code = file.production_code();
        if let Some(clock) = CLOCKS.iter().find(|clock| code.contains(*clock)) {
            broken.push(format!(
                "{}: it reads the time ({clock}), but it only decides; take the time as an argument",
                file.path
            ));
        }
    }
    broken
}

fn safety(files: &[File]) -> Vec<String> {
    let roots = files.iter().filter(|file| is_crate_root(&file.path) && !file.is_in(MAY_BE_UNSAFE));
    roots
        .filter(|file| !file.code().contains("#![forbid(unsafe_code)]"))
        .map(|file| {
            format!(
                "{}: it does not forbid unsafe code; add #![forbid(unsafe_code)] below the //! lines",
                file.path
            )
        })
        .collect()
}

/// True for the file that a library or a program begins with.
fn is_crate_root(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    matches!(name, "lib.rs" | "main.rs") && folder.ends_with("src")
        || name.ends_with(".rs") && folder.ends_with("src/bin")
}

fn sizes(files: &[File]) -> Vec<String> {
    let large = files.iter().filter(|file| file.size > MAX_SIZE);
    large
        .map(|file| format!("{}: it has {} bytes, and nothing here may have more than {MAX_SIZE}; generate or download it instead", file.path, file.size))
        .collect()
}

fn machine_paths(files: &[File]) -> Vec<String> {
    // Put together, so that this file does not break its own rule.
    let homes = ["root", "work", "home"].map(|directory| format!("/{directory}/"));
    let begins_path =
        |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || "._-~})$".contains(c));
    let mut broken = Vec::new();
    for file in files {
        for (number, line) in file.text.iter().flat_map(|text| text.lines()).enumerate() {
            let found =
                homes.iter().find(|home| line.match_indices(*home).any(|(at, _)| begins_path(&line[..at])));
            broken.extend(found.map(|home| {
                format!(
                    "{}:{}: it holds {home}, a path of one machine; make it relative or configurable",
                    file.path,
                    number + 1
                )
            }));
        }
    }
    broken
}

fn required(files: &[File]) -> Vec<String> {
    let missing = REQUIRED.iter().filter(|name| !files.iter().any(|file| file.path == **name));
    missing.map(|name| format!("{name}: it is missing; write it at the top of the repository")).collect()
}

/// Fails with every sentence about this checkout.
fn holds(rule: fn(&[File]) -> Vec<String>) {
    let broken = rule(&checkout::files());
    assert!(broken.is_empty(), "\n\n{}\n", broken.join("\n"));
}

/// Fails unless `rule` says one thing about this checkout with `planted` in it that it did not say before, and
/// that holds `words`.
fn finds(rule: fn(&[File]) -> Vec<String>, planted: File, words: &str) {
    let mut files = checkout::files();
    let before = rule(&files);
    files.retain(|file| file.path != planted.path);
    files.push(planted);
    let new: Vec<String> = rule(&files).into_iter().filter(|sentence| !before.contains(sentence)).collect();
    assert!(new.len() == 1 && new[0].contains(words), "expected one sentence with {words:?}: {new:#?}");
}

#[test]
fn imports_point_one_way() {
    let manifest = |dependencies: &str| {
        File::new("server/traffic/Cargo.toml", &format!("[package]\nname = \"traffic\"\n{dependencies}"))
    };
    let words = "server/traffic may not import inference";
    finds(imports, manifest("[dependencies]\ninference.workspace = true"), words);
    finds(imports, manifest("[dev-dependencies]\nqueue = { package = \"inference\", path = \"..\" }"), words);
    finds(imports, manifest("[target.'cfg(unix)'.build-dependencies]\ninference = \"1\""), words);
    holds(imports);
}

#[test]
fn every_member_has_its_imports_decided() {
    let workspace = |members: &str| File::new("Cargo.toml", &format!("[workspace]\nmembers = [{members}]"));
    let listed = |places: &[(&str, &[&str])]| {
        places.iter().map(|(place, _)| format!("{place:?},")).collect::<String>()
    };
    finds(imports, workspace(&listed(&MAY_IMPORT[1..])), "MAY_IMPORT lists proto, which is no member");
    finds(imports, workspace(&(listed(MAY_IMPORT) + "\"fuzz\"")), "the member has no line in MAY_IMPORT");
}

#[test]
fn every_module_starts_with_its_story() {
    finds(
        introductions,
        File::new("server/src/new.rs", "// new\n//! late"),
        "server/src/new.rs: it does not",
    );
    holds(introductions);
}

#[test]
fn every_name_is_a_noun_of_the_field() {
    finds(names, File::new("server/src/utils.rs", ""), "\"utils\" says nothing");
    finds(names, File::new("clients/python/helpers/new.py", ""), "\"helpers\" says nothing");
    finds(names, File::new("server/src/new.rs", "pub mod common { }"), "\"common\" says nothing");
    holds(names);
}

#[test]
fn only_the_backend_knows_onnx_runtime() {
    finds(onnx_runtime, File::new("server/src/new.rs", "use ort::session::Session;"), "mentions ort::");
    let manifest = "[package]\nname = \"traffic\"\n[dependencies]\nort = \"2\"";
    finds(onnx_runtime, File::new("server/traffic/Cargo.toml", manifest), "it depends on ort");
    holds(onnx_runtime);
}

#[test]
fn only_its_crate_knows_object_storage() {
    let code = "use object_store::ObjectStore;";
    finds(object_storage, File::new("server/src/new.rs", code), "mentions object_store::");
    let manifest = "[package]\nname = \"traffic\"\n[dependencies]\nobject_store = \"0.14\"";
    finds(object_storage, File::new("server/traffic/Cargo.toml", manifest), "it depends on object_store");
    holds(object_storage);
}

#[test]
fn only_the_edge_knows_the_wire() {
    for (code, message) in [
        ("fn f(request: proto::v2::ModelInferRequest) {}", "ModelInferRequest"),
        ("use proto::v2::{ModelConfig, InferParameter};", "InferParameter"),
        ("use proto::v2::*;", "*"),
    ] {
        finds(wire_types, File::new("server/inference/src/new.rs", code), &format!("the wire's {message},"));
    }
    holds(wire_types);
}

#[test]
fn what_decides_does_not_read_the_time() {
    for clock in ["std::time::Instant::now()", "SystemTime::now()", "since.elapsed()"] {
        let code = format!("//! New.\nfn f() {{ {clock}; }}\n");
        finds(clocks, File::new("server/traffic/src/new.rs", &code), "take the time as an argument");
    }
    holds(clocks);
}

#[test]
fn unsafe_code_is_forbidden() {
    for root in ["server/new/src/lib.rs", "new/src/main.rs", "benches/src/bin/new.rs"] {
        finds(safety, File::new(root, "//! #![forbid(unsafe_code)]"), "add #![forbid(unsafe_code)]");
    }
    holds(safety);
}

#[test]
fn nothing_is_large() {
    finds(sizes, File { size: MAX_SIZE + 1, ..File::new("model.onnx", "") }, "it has 2000001 bytes");
    holds(sizes);
}

#[test]
fn no_path_is_of_one_machine() {
    let path = ["", "root", "target"].join("/");
    finds(machine_paths, File::new("new.md", &format!("Run\n`{path}/volley`.")), "new.md:2: it holds");
    holds(machine_paths);
}

#[test]
fn what_a_reader_looks_for_is_there() {
    let files: Vec<File> = REQUIRED[1..].iter().map(|name| File::new(name, "")).collect();
    assert_eq!(required(&files).len(), 1);
    holds(required);
}
