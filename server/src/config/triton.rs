//! The options of Triton that Volley knows by name but does not act on.
//!
//! A command line made for Triton starts Volley unchanged: these are accepted and named once in the log. Those
//! whose loss would leave open what their user meant to close are refused instead.

/// An option of Triton that has no effect here.
#[derive(Debug)]
pub(super) struct ForeignOption {
    /// The flag without its dashes.
    pub(super) name: &'static str,
    /// True when its value is a boolean, and the flag alone means `true`.
    pub(super) switch: bool,
    /// Why the server does not start with it; `None` when it may be left without effect.
    pub(super) refusal: Option<&'static str>,
}

const fn value(name: &'static str) -> ForeignOption {
    ForeignOption { name, switch: false, refusal: None }
}

const fn switch(name: &'static str) -> ForeignOption {
    ForeignOption { name, switch: true, refusal: None }
}

impl ForeignOption {
    const fn refused(mut self, why: &'static str) -> ForeignOption {
        self.refusal = Some(why);
        self
    }
}

const NO_TLS: &str = "gRPC is served without TLS, so what should be encrypted would not be; leave it out and end TLS at a proxy";
const NO_RESTRICTION: &str = "no endpoint can be restricted yet, so what should be closed would be open; leave it out and close it at a \
     proxy";

/// Every option of Triton that is not a setting of Volley, in the order of Triton's help.
pub(super) static OPTIONS: &[ForeignOption] = &[
    value("metrics-interval-ms"),
    value("model-load-retry-count"),
    value("model-load-gpu-limit"),
    switch("model-namespacing"),
    switch("enable-peer-access"),
    value("backend-directory"),
    value("repoagent-directory"),
    value("host-policy"),
    value("buffer-manager-thread-count"),
    value("pinned-memory-pool-byte-size"),
    value("cuda-memory-pool-byte-size"),
    value("cuda-virtual-address-size"),
    value("min-supported-compute-capability"),
    switch("allow-client-shm"),
    value("cache-directory"),
    value("http-header-forward-pattern"),
    value("http-restricted-api").refused(NO_RESTRICTION),
    value("grpc-header-forward-pattern"),
    value("grpc-infer-thread-count"),
    value("grpc-infer-allocation-pool-size"),
    value("grpc-max-response-pool-size"),
    switch("grpc-use-ssl").refused(NO_TLS),
    switch("grpc-use-ssl-mutual").refused(NO_TLS),
    value("grpc-server-cert").refused(NO_TLS),
    value("grpc-server-key").refused(NO_TLS),
    value("grpc-root-cert").refused(NO_TLS),
    switch("grpc-keepalive-permit-without-calls"),
    value("grpc-http2-max-pings-without-data"),
    value("grpc-http2-min-recv-ping-interval-without-data"),
    value("grpc-http2-max-ping-strikes"),
    value("grpc-restricted-protocol").refused(NO_RESTRICTION),
    switch("allow-gpu-metrics"),
    switch("allow-cpu-metrics"),
    value("metrics-config"),
    value("trace-config"),
    value("trace-file"),
    value("trace-level"),
    value("trace-rate"),
    value("trace-count"),
    value("trace-log-frequency"),
    switch("allow-sagemaker"),
    value("sagemaker-port"),
    value("sagemaker-safe-port-range"),
    value("sagemaker-thread-count"),
    switch("allow-vertex-ai"),
    value("vertex-ai-port"),
    value("vertex-ai-thread-count"),
    value("vertex-ai-default-model"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::settings;

    #[test]
    fn no_name_is_declared_twice() {
        let mut seen = HashSet::new();
        let own = settings::ALL.iter().flat_map(|declaration| {
            std::iter::once(declaration.name).chain(declaration.aliases.iter().copied())
        });
        for name in own.chain(OPTIONS.iter().map(|option| option.name)) {
            assert!(seen.insert(name), "{name}");
        }
    }
}
