//! What does it cost to put the inputs of requests together, and to take their outputs apart?

use bytes::Bytes;
use inference::backend::{InstanceInput, InstanceOutput};
use inference::batch::{Gather, Inputs, scatter};
use model::{DataType, Dims, Tensor};

use crate::HotPath;

/// Requests in a batch.
const REQUESTS: [usize; 3] = [2, 8, 32];

/// The elements of one request, and what its size is called.
const SIZES: [(&str, &[i64]); 2] = [("64", &[64]), ("3x224x224", &[3, 224, 224])];

/// One copy of each input, and a slice of the output for each request, for small and for large tensors.
pub fn paths() -> Vec<HotPath> {
    let of = |(size, dims): (&'static str, &'static [i64])| {
        REQUESTS.into_iter().flat_map(move |requests| {
            [
                HotPath::new(format!("batch/gather/{size}/{requests}"), move || {
                    let inputs: Vec<Inputs> = (0..requests).map(|_| inputs(dims)).collect();
                    let mut gather = Gather::default();
                    move || {
                        let gathered = gather.gather(inputs.iter()).expect("all have the same inputs");
                        gather.reuse(gathered);
                    }
                }),
                HotPath::new(format!("batch/scatter/{size}/{requests}"), move || {
                    let output = output(requests, dims);
                    move || {
                        let rows = std::iter::repeat_n(1, requests);
                        scatter(&output, DataType::Fp32, rows).expect("its rows are the requests'")
                    }
                }),
            ]
        })
    };
    SIZES.into_iter().flat_map(of).collect()
}

fn inputs(dims: &[i64]) -> Inputs {
    let shape: Dims = std::iter::once(1).chain(dims.iter().copied()).collect();
    let data = floats(&shape);
    let tensor = Tensor { name: "x".into(), datatype: DataType::Fp32, shape, data };
    [InstanceInput { index: 0, tensor }].into_iter().collect()
}

fn output(requests: usize, dims: &[i64]) -> InstanceOutput {
    let rows = i64::try_from(requests).expect("a batch is small");
    let shape: Dims = std::iter::once(rows).chain(dims.iter().copied()).collect();
    InstanceOutput { data: floats(&shape), shape }
}

fn floats(shape: &Dims) -> Bytes {
    let count = model::element_count(shape).expect("the shape is a tensor's");
    Bytes::from(vec![0; count * size_of::<f32>()])
}
