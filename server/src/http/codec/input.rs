//! One element of a request's `inputs`, as a tensor.

use std::fmt;

use bytes::Bytes;
use model::{DataType, Dims, InferError, Tensor};
use smol_str::SmolStr;

use super::decode::Limits;
use super::read_data::{Declared, read_data};
use super::reader::Reader;
use crate::request_rules::check_dimensions;
use crate::tensor_bytes::packed_tensor;

const SOURCES: &str = "data, parameters.binary_data_size and parameters.shared_memory_region";

/// The part of the body after the JSON, from which inputs take their binary data in turn.
#[derive(Debug)]
pub(super) struct BinaryData<'a> {
    body: &'a Bytes,
    start: usize,
    taken: usize,
}

impl<'a> BinaryData<'a> {
    pub(super) fn new(body: &'a Bytes, start: usize) -> BinaryData<'a> {
        BinaryData { body, start, taken: 0 }
    }

    fn take(&mut self, name: &str, size: usize) -> Result<Bytes, InferError> {
        let from = self.start + self.taken;
        let left = self.body.len() - from;
        if size > left {
            return Err(InferError::invalid(format!(
                "input '{name}' has a binary_data_size of {size} bytes, but {left} bytes are left after the \
                 JSON (its length is what Inference-Header-Content-Length says)"
            )));
        }
        self.taken += size;
        Ok(self.body.slice(from..from + size))
    }

    /// Checks that the inputs took all of it.
    pub(super) fn end(self) -> Result<(), InferError> {
        let given = self.body.len() - self.start;
        if self.taken == given {
            return Ok(());
        }
        Err(InferError::invalid(format!(
            "{given} bytes follow the JSON, but the inputs' binary_data_size add up to {} bytes",
            self.taken
        )))
    }
}

/// What is known of an input while its object is read. Keys come in any order.
#[derive(Debug)]
struct Input<'a> {
    index: usize,
    name: Option<SmolStr>,
    datatype: Option<DataType>,
    shape: Option<Dims>,
    data: Option<Data<'a>>,
    binary_data_size: Option<usize>,
    shared_memory: bool,
}

#[derive(Debug)]
enum Data<'a> {
    Read(Bytes),
    /// Came before the keys that say how to read it: a bookmark, to read it from later.
    Unread(Reader<'a>),
}

/// Names the input in errors: by its name once that is known, by its place until then.
impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "input '{name}'"),
            None => write!(f, "input {}", self.index),
        }
    }
}

/// Reads the object that is next as the input at `index`.
pub(super) fn read_input(
    reader: &mut Reader,
    index: usize,
    binary: &mut BinaryData,
    limits: &Limits,
) -> Result<Tensor, InferError> {
    let mut input = Input {
        index,
        name: None,
        datatype: None,
        shape: None,
        data: None,
        binary_data_size: None,
        shared_memory: false,
    };
    reader.begin_object()?;
    while let Some(key) = reader.next_key()? {
        input.read_member(&key, reader, limits)?;
    }
    input.into_tensor(binary, limits)
}

impl<'a> Input<'a> {
    fn read_member(&mut self, key: &str, reader: &mut Reader<'a>, limits: &Limits) -> Result<(), InferError> {
        let known = match key {
            "name" => self.name.replace(SmolStr::new(reader.string()?)).is_some(),
            "datatype" => {
                let datatype = self.parse_datatype(&reader.string()?)?;
                self.datatype.replace(datatype).is_some()
            }
            "shape" => {
                let shape = self.read_shape(reader)?;
                self.shape.replace(shape).is_some()
            }
            "data" => {
                let data = self.read_data(reader, limits)?;
                self.data.replace(data).is_some()
            }
            "parameters" if reader.null()? => false,
            "parameters" => {
                self.read_parameters(reader)?;
                false
            }
            _ => {
                reader.skip_value()?;
                false
            }
        };
        if known { Err(self.invalid(format_args!("has the key '{key}' twice"))) } else { Ok(()) }
    }

    fn parse_datatype(&self, name: &str) -> Result<DataType, InferError> {
        DataType::parse(name).ok_or_else(|| {
            let names = DataType::ALL.map(DataType::name).join(", ");
            self.invalid(format_args!("has the datatype '{name:.40}', which is none of {names}"))
        })
    }

    fn read_shape(&self, reader: &mut Reader) -> Result<Dims, InferError> {
        let mut shape = Dims::default();
        reader.begin_array()?;
        while reader.next_element()? {
            check_dimensions(self, shape.len() + 1)?;
            let number = reader.number()?;
            match number.to_integer().map(i64::try_from) {
                Some(Ok(dim @ 0..)) => shape.push(dim),
                _ => {
                    let text = String::from_utf8_lossy(number.text);
                    let index = shape.len();
                    return Err(self.invalid(format_args!(
                        "has {text:.40} as dimension {index} of its shape; a dimension is an integer from 0 \
                         to {}",
                        i64::MAX
                    )));
                }
            }
        }
        Ok(shape)
    }

    fn read_data(&self, reader: &mut Reader<'a>, limits: &Limits) -> Result<Data<'a>, InferError> {
        if reader.peek().is_some_and(|first| first != b'[') {
            return Err(self.invalid(format_args!("has data that is not an array of its elements")));
        }
        if let (Some(name), Some(datatype), Some(shape)) = (&self.name, self.datatype, &self.shape) {
            return read_data(reader, Declared { name, datatype, shape }, limits).map(Data::Read);
        }
        let bookmark = *reader;
        reader.skip_data()?;
        Ok(Data::Unread(bookmark))
    }

    fn read_parameters(&mut self, reader: &mut Reader) -> Result<(), InferError> {
        reader.begin_object()?;
        while let Some(key) = reader.next_key()? {
            match &*key {
                "binary_data_size" => {
                    let size = self.read_size(reader)?;
                    if self.binary_data_size.replace(size).is_some() {
                        return Err(self.invalid(format_args!("has the parameter '{key}' twice")));
                    }
                }
                "shared_memory_region" => {
                    reader.string()?;
                    self.shared_memory = true;
                }
                _ => reader.skip_value()?,
            }
        }
        Ok(())
    }

    fn read_size(&self, reader: &mut Reader) -> Result<usize, InferError> {
        let number = reader.number()?;
        number.to_integer().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
            let text = String::from_utf8_lossy(number.text);
            self.invalid(format_args!("has a binary_data_size of {text:.40}, which is no number of bytes"))
        })
    }

    fn into_tensor(mut self, binary: &mut BinaryData, limits: &Limits) -> Result<Tensor, InferError> {
        let Some(name) = self.name.take() else { return Err(self.missing("name")) };
        // Errors from here on name it again.
        self.name = Some(name.clone());
        let Some(datatype) = self.datatype else { return Err(self.missing("datatype")) };
        let Some(shape) = self.shape.take() else { return Err(self.missing("shape")) };
        let data = match (self.data.take(), self.binary_data_size, self.shared_memory) {
            (Some(Data::Read(data)), None, false) => data,
            (Some(Data::Unread(mut bookmark)), None, false) => {
                read_data(&mut bookmark, Declared { name: &name, datatype, shape: &shape }, limits)?
            }
            (None, Some(size), false) => {
                return packed_tensor(name.clone(), datatype, shape, binary.take(&name, size)?);
            }
            (None, None, true) => {
                return Err(InferError::unsupported(format!(
                    "input '{name}' is in a shared memory region, and shared memory regions are not available \
                     on this server; send its data in the request"
                )));
            }
            (None, None, false) => {
                return Err(self.invalid(format_args!("has no data; give one of {SOURCES}")));
            }
            _ => return Err(self.invalid(format_args!("has its data twice; give one of {SOURCES}"))),
        };
        Ok(Tensor { name, datatype, shape, data })
    }

    #[cold]
    fn missing(&self, key: &str) -> InferError {
        self.invalid(format_args!("has no '{key}'"))
    }

    #[cold]
    fn invalid(&self, fault: fmt::Arguments) -> InferError {
        InferError::invalid(format!("{self} {fault}"))
    }
}
