//! The servers that are compared, and how each is started. Why each is configured as it is, is said in
//! `benches/peers/README.md` and in its program beside it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::exchange::model_file;
use crate::workspace::Workspace;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    HttpJson,
    Grpc,
}

impl Protocol {
    /// What `volley-load` calls it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Protocol::HttpJson => "http-json",
            Protocol::Grpc => "grpc",
        }
    }
}

/// A server that is compared.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// What `--only` calls it.
    pub(super) name: &'static str,
    /// What readers of the table call it.
    pub(super) title: &'static str,
    pub(super) protocol: Protocol,
    pub(super) program: Program,
}

/// What is started.
#[derive(Clone, Debug)]
pub(super) enum Program {
    /// A program of `benches` that sends back what it gets.
    Floor(&'static str),
    Volley,
    Python(Python),
    /// Somebody else started it: its address.
    Elsewhere(String),
}

/// A server of the Python package index. In arguments and variables stand `{port}`, `{port2}` and `{port3}` for
/// ports that are free, `{cores}` for the number of cores and `{scratch}` for a directory that may be written.
#[derive(Clone, Debug)]
pub(super) struct Python {
    /// Under `benches/peers`: its requirements, and its program.
    pub(super) directory: &'static str,
    /// The program of its virtual environment, and its arguments.
    command: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
}

impl Program {
    /// How many of the ports of a [`Place`] it listens on.
    pub(super) fn ports(&self) -> usize {
        match self {
            Program::Elsewhere(_) => 0,
            Program::Floor(_) => 1,
            Program::Volley => 3,
            Program::Python(python) => {
                let words = python.command.iter().chain(python.variables.iter().map(|(_, value)| value));
                let named = |name| words.clone().any(|word| word.contains(name));
                1 + usize::from(named("{port2}")) + usize::from(named("{port3}"))
            }
        }
    }
}

/// All that can be started here, in the order of the table.
const PEERS: &[Peer] = &[
    Peer {
        name: "floor",
        title: "floor: bare hyper echo",
        protocol: Protocol::HttpJson,
        program: Program::Floor("http_floor"),
    },
    Peer { name: "volley", title: "Volley", protocol: Protocol::HttpJson, program: Program::Volley },
    Peer {
        name: "mosec",
        title: "mosec",
        protocol: Protocol::HttpJson,
        program: Program::Python(Python {
            directory: "mosec",
            command: &["python", "serve.py"],
            variables: &[
                ("MOSEC_ADDRESS", "127.0.0.1"),
                ("MOSEC_PORT", "{port}"),
                ("MOSEC_LOG_LEVEL", "warning"),
            ],
        }),
    },
    Peer {
        name: "fastapi",
        title: "FastAPI + uvicorn",
        protocol: Protocol::HttpJson,
        program: Program::Python(Python {
            directory: "fastapi",
            command: &[
                "uvicorn",
                "app:app",
                "--host",
                "127.0.0.1",
                "--port",
                "{port}",
                "--workers",
                "{cores}",
                "--no-access-log",
                "--log-level",
                "warning",
            ],
            variables: &[],
        }),
    },
    Peer {
        name: "ray_serve",
        title: "Ray Serve",
        protocol: Protocol::HttpJson,
        program: Program::Python(Python {
            directory: "ray_serve",
            command: &["python", "serve.py"],
            variables: &[
                ("RAY_SERVE_ENABLE_HA_PROXY", "1"),
                ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1"),
                ("RAY_SERVE_HAPROXY_NBTHREAD", "{cores}"),
                ("RAY_USAGE_STATS_ENABLED", "0"),
            ],
        }),
    },
    Peer {
        name: "litserve",
        title: "LitServe",
        protocol: Protocol::HttpJson,
        program: Program::Python(Python {
            directory: "litserve",
            command: &["python", "serve.py"],
            variables: &[],
        }),
    },
    Peer {
        name: "mlserver",
        title: "MLServer",
        protocol: Protocol::HttpJson,
        program: Program::Python(Python {
            directory: "mlserver",
            command: &["mlserver", "start", "."],
            variables: &[
                ("MLSERVER_HTTP_PORT", "{port}"),
                ("MLSERVER_GRPC_PORT", "{port2}"),
                ("MLSERVER_METRICS_PORT", "{port3}"),
                ("MLSERVER_PARALLEL_WORKERS", "{cores}"),
                ("MLSERVER_METRICS_DIR", "{scratch}"),
                ("MLSERVER_ENVIRONMENTS_DIR", "{scratch}"),
            ],
        }),
    },
    Peer {
        name: "grpc_floor",
        title: "floor: bare tonic echo (gRPC)",
        protocol: Protocol::Grpc,
        program: Program::Floor("grpc_floor"),
    },
    Peer { name: "volley_grpc", title: "Volley (gRPC)", protocol: Protocol::Grpc, program: Program::Volley },
];

/// The servers named in `only`, all when none is, and Triton at `triton`.
pub(super) fn chosen(only: &[String], triton: Option<&str>) -> Result<Vec<Peer>> {
    let triton = triton.map(|url| Peer {
        name: "triton",
        title: "Triton",
        protocol: Protocol::HttpJson,
        program: Program::Elsewhere(url.trim_end_matches('/').to_owned()),
    });
    let all: Vec<Peer> = PEERS.iter().cloned().chain(triton).collect();
    let names: Vec<&str> = all.iter().map(|peer| peer.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no server {unknown:?} to compare; there are {}", names.join(", "));
    }
    let wanted = |peer: &Peer| only.is_empty() || only.iter().any(|name| name == peer.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// The places of one measurement.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) workspace: &'a Workspace,
    /// Where models, logs and results are.
    pub(super) directory: &'a Path,
    pub(super) ports: [u16; 3],
    pub(super) cores: usize,
}

impl Place<'_> {
    /// Volley with nothing configured but the ports.
    pub(super) fn volley(&self) -> Command {
        let mut command = self.workspace.command(self.workspace.release("volley"));
        command.arg("--model-repository").arg(self.directory.join("models"));
        for (option, port) in ["--http-port", "--grpc-port", "--metrics-port"].into_iter().zip(self.ports) {
            command.arg(option).arg(port.to_string());
        }
        command
    }

    pub(super) fn floor(&self, program: &str) -> Command {
        let mut command = self.workspace.command(self.workspace.release(program));
        command.args(["--port", &self.ports[0].to_string(), "--workers", &self.cores.to_string()]);
        command
    }

    /// The server `python`, with the programs of its environment in `bin`.
    pub(super) fn python(&self, python: &Python, bin: &Path) -> Command {
        let peers = self.workspace.root.join("benches/peers");
        let [program, arguments @ ..] = python.command else { unreachable!("a command names a program") };
        let mut command = Command::new(bin.join(program));
        command
            .args(arguments.iter().map(|argument| self.filled(argument)))
            .envs(python.variables.iter().map(|(name, value)| (name, self.filled(value))))
            .env("PYTHONPATH", peers.join("protocol"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PEER_MODEL", model_file(self.directory))
            .env("PEER_PORT", self.ports[0].to_string())
            .env("PEER_CORES", self.cores.to_string())
            .current_dir(peers.join(python.directory));
        command
    }

    fn filled(&self, text: &str) -> String {
        let [first, second, third] = self.ports.map(|port| port.to_string());
        text.replace("{port}", &first)
            .replace("{port2}", &second)
            .replace("{port3}", &third)
            .replace("{cores}", &self.cores.to_string())
            .replace("{scratch}", &self.directory.join("scratch").to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn servers_are_chosen_by_name() {
        let names = |only: &[&str], triton| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&only, triton).map(|peers| peers.iter().map(|peer| peer.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["mosec", "volley"], None).unwrap(), ["volley", "mosec"]);
        assert_eq!(names(&[], Some("http://127.0.0.1:8000/")).unwrap().last(), Some(&"triton"));
        assert!(!names(&[], None).unwrap().contains(&"triton"));
        let error = names(&["triton"], None).unwrap_err().to_string();
        assert!(error.contains(r#"no server "triton""#) && error.contains("mosec"), "{error}");
    }

    #[test]
    fn a_server_has_the_ports_that_it_is_told() {
        let ports = |name| PEERS.iter().find(|peer| peer.name == name).map(|peer| peer.program.ports());
        assert_eq!(ports("floor"), Some(1));
        assert_eq!(ports("volley"), Some(3));
        assert_eq!((ports("litserve"), ports("mosec"), ports("mlserver")), (Some(1), Some(1), Some(3)));
    }

    #[test]
    fn every_python_server_has_its_requirements_and_starts_in_its_directory() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let workspace = Workspace { root: root.to_owned(), target: PathBuf::from("/target") };
        let directory = Path::new("/target/peers");
        let place = Place { workspace: &workspace, directory, ports: [7001, 7002, 7003], cores: 4 };
        for peer in PEERS {
            let Program::Python(python) = &peer.program else { continue };
            let command = place.python(python, Path::new("/venv/bin"));
            let directory = command.get_current_dir().unwrap();
            assert!(directory.join("requirements.txt").exists(), "{}", peer.name);
            let told: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            assert!(!told.iter().any(|word| word.contains('{')), "{told:?}");
        }
    }
}
