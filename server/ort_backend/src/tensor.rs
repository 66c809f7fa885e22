//! ONNX Runtime's tensors: made over a request's bytes, and read back as bytes.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use model::{DataType, Dims, Tensor, bytes_tensor};
use ort::session::SharedSessionInner;
use ort::sys;
use ort::value::TensorElementType;

use crate::run::{Status, check};

/// The smallest alignment that suits every element type.
const MAX_ALIGN: usize = 8;

/// An `OrtValue` that is released when dropped.
pub(crate) struct Value {
    pointer: NonNull<sys::OrtValue>,
}

// SAFETY: an OrtValue is a reference-counted handle to memory that no thread owns; ONNX Runtime's API may be
// called on it from any thread, one at a time for writes, and `Value` never shares it.
unsafe impl Send for Value {}
// SAFETY: through a shared `Value` only its memory's address, type and shape are read.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the pointer came from ONNX Runtime, which gave us its ownership, and is released once.
        unsafe { (ort::api().ReleaseValue)(self.pointer.as_ptr()) }
    }
}

/// An input of one run and what keeps its bytes alive.
pub(crate) struct Input {
    value: Value,
    /// The memory `value` points to; `None` when ONNX Runtime owns it.
    _bytes: Option<Bytes>,
}

impl Input {
    pub(crate) fn pointer(&self) -> *const sys::OrtValue {
        self.value.pointer.as_ptr()
    }

    /// An `OrtValue` over `tensor`'s own bytes, which are copied only when they are not aligned to their
    /// element (a slice of a larger body) or are strings.
    pub(crate) fn new(tensor: &Tensor, memory: &CpuMemory) -> Result<Input, Status> {
        match tensor.datatype.element_size() {
            None => Ok(Input { value: strings(tensor)?, _bytes: None }),
            Some(size) => {
                let bytes = aligned(&tensor.data, size);
                let value = numbers(tensor, &bytes, memory)?;
                Ok(Input { value, _bytes: Some(bytes) })
            }
        }
    }
}

/// `bytes` at an address that suits elements of `size` bytes.
fn aligned(bytes: &Bytes, size: usize) -> Bytes {
    if bytes.as_ptr().align_offset(size) == 0 {
        return bytes.clone();
    }
    // A Vec of u64 is aligned for every element type.
    let mut copy = vec![0_u64; bytes.len().div_ceil(MAX_ALIGN)];
    let words = NonNull::from(copy.as_mut_slice()).cast::<u8>();
    // SAFETY: `copy` has room for at least `bytes.len()` bytes, and the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), words.as_ptr(), bytes.len()) };
    let length = bytes.len();
    Bytes::from_owner(Words { words: copy, length })
}

struct Words {
    words: Vec<u64>,
    length: usize,
}

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: every byte of the words is initialised, and there are at least `length` of them.
        unsafe { slice::from_raw_parts(self.words.as_ptr().cast(), self.length) }
    }
}

fn numbers(tensor: &Tensor, bytes: &Bytes, memory: &CpuMemory) -> Result<Value, Status> {
    let mut value = ptr::null_mut();
    // ONNX Runtime takes inputs as mutable memory in its C signature, and reads them only: a graph's inputs
    // are never written to, since other nodes may read them.
    let data = bytes.as_ptr().cast_mut().cast::<c_void>();
    // SAFETY: `data` points to `bytes.len()` bytes that outlive the value (`Input` holds both); the shape
    // is a valid slice; ONNX Runtime checks that the length is what shape and type take.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            memory.pointer.as_ptr(),
            data,
            bytes.len(),
            tensor.shape.as_ptr(),
            tensor.shape.len(),
            element_type(tensor.datatype),
            &mut value,
        )
    };
    owned(status, value)
}

/// Strings are copied into ONNX Runtime's own, any bytes included.
fn strings(tensor: &Tensor) -> Result<Value, Status> {
    let api = ort::api();
    let mut allocator = ptr::null_mut();
    // SAFETY: writes the address of the default allocator, which lives as long as the process.
    check(unsafe { (api.GetAllocatorWithDefaultOptions)(&mut allocator) })?;
    let mut value = ptr::null_mut();
    // SAFETY: the allocator is valid, the shape is a valid slice.
    let status = unsafe {
        (api.CreateTensorAsOrtValue)(
            allocator,
            tensor.shape.as_ptr(),
            tensor.shape.len(),
            element_type(DataType::Bytes),
            &mut value,
        )
    };
    let value = owned(status, value)?;
    for (index, element) in bytes_tensor::elements(&tensor.data).enumerate() {
        let element = element.map_err(|error| Status::from(error.to_string()))?;
        let mut buffer = ptr::null_mut();
        // SAFETY: the value is a string tensor; ONNX Runtime checks that `index` is one of its elements.
        check(unsafe {
            (api.GetResizedStringTensorElementBuffer)(
                value.pointer.as_ptr(),
                index,
                element.len(),
                &mut buffer,
            )
        })?;
        // SAFETY: the buffer has room for `element.len()` bytes and is not part of `tensor`.
        unsafe { ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast(), element.len()) };
    }
    Ok(value)
}

fn owned(status: sys::OrtStatusPtr, value: *mut sys::OrtValue) -> Result<Value, Status> {
    check(status)?;
    let pointer =
        NonNull::new(value).ok_or_else(|| Status::from("ONNX Runtime made no tensor".to_owned()))?;
    Ok(Value { pointer })
}

impl Value {
    /// Takes over a value that a run has made.
    pub(crate) fn from_run(pointer: *mut sys::OrtValue) -> Result<Value, Status> {
        owned(sys::OrtStatusPtr(ptr::null_mut()), pointer)
    }

    /// The tensor's shape and elements; the bytes stay where the run has left them. `session` is kept as
    /// long as the bytes are, since they may be in its arena.
    pub(crate) fn into_output(
        self,
        datatype: DataType,
        session: &Arc<SharedSessionInner>,
    ) -> Result<(Dims, Bytes), Status> {
        let (given, shape) = self.element_type_and_shape()?;
        if given != element_type(datatype) {
            return Err(Status::from(format!("an output is not {datatype}, as the model's signature says")));
        }
        let elements = model::element_count(&shape).map_err(|error| Status::from(error.to_string()))?;
        let Some(size) = datatype.element_size() else {
            return Ok((shape, self.packed_strings(elements)?));
        };
        let mut data = ptr::null_mut();
        // SAFETY: the value is a tensor of numbers; writes the address of its memory.
        check(unsafe { (ort::api().GetTensorMutableData)(self.pointer.as_ptr(), &mut data) })?;
        let length = elements * size;
        if length == 0 {
            return Ok((shape, Bytes::new()));
        }
        let memory = OutputMemory {
            data: data.cast_const().cast(),
            length,
            _value: self,
            _session: Arc::clone(session),
        };
        Ok((shape, Bytes::from_owner(memory)))
    }

    fn element_type_and_shape(&self) -> Result<(sys::ONNXTensorElementDataType, Dims), Status> {
        let mut datatype = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut dims, mut rank) = (ptr::null(), 0);
        // SAFETY: the value is a tensor (the signature says so, and ONNX Runtime checks it); the shape it
        // points to lives as long as the value, and is copied at once.
        check(unsafe {
            (ort::api().GetTensorElementTypeAndShapeDataReference)(
                self.pointer.as_ptr(),
                &mut datatype,
                &mut dims,
                &mut rank,
            )
        })?;
        let dims = if rank == 0 {
            Dims::default()
        } else {
            // SAFETY: ONNX Runtime has just said that `rank` dimensions are there.
            Dims::new(unsafe { slice::from_raw_parts(dims, rank) })
        };
        Ok((datatype, dims))
    }

    /// Every string with its length in front.
    fn packed_strings(&self, elements: usize) -> Result<Bytes, Status> {
        let api = ort::api();
        let mut length = 0;
        // SAFETY: the value is a string tensor.
        check(unsafe { (api.GetStringTensorDataLength)(self.pointer.as_ptr(), &mut length) })?;
        let mut content = vec![0_u8; length];
        let mut offsets = vec![0_usize; elements];
        // SAFETY: both buffers have the sizes given, which are those that ONNX Runtime asks for.
        check(unsafe {
            (api.GetStringTensorContent)(
                self.pointer.as_ptr(),
                content.as_mut_ptr().cast(),
                length,
                offsets.as_mut_ptr(),
                elements,
            )
        })?;
        let mut packed = Vec::with_capacity(length + 4 * elements);
        for (index, start) in offsets.iter().enumerate() {
            let end = offsets.get(index + 1).copied().unwrap_or(length);
            bytes_tensor::push(&mut packed, content.get(*start..end).unwrap_or_default());
        }
        Ok(packed.into())
    }
}

/// The memory of an output, lent out as `Bytes`.
struct OutputMemory {
    data: *const u8,
    length: usize,
    // In this order: the value is released before the session whose arena it came from.
    _value: Value,
    _session: Arc<SharedSessionInner>,
}

// SAFETY: the memory is only read from now on, and belongs to the value held beside it.
unsafe impl Send for OutputMemory {}
// SAFETY: as above.
unsafe impl Sync for OutputMemory {}

impl AsRef<[u8]> for OutputMemory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: ONNX Runtime has said that the value's elements are at `data`; `length` is their count
        // times their size, and the value lives as long as `self`.
        unsafe { slice::from_raw_parts(self.data, self.length) }
    }
}

/// ONNX Runtime's name for the memory of this process.
pub(crate) struct CpuMemory {
    pointer: NonNull<sys::OrtMemoryInfo>,
}

// SAFETY: immutable after it was made.
unsafe impl Send for CpuMemory {}
// SAFETY: immutable after it was made.
unsafe impl Sync for CpuMemory {}

impl CpuMemory {
    pub(crate) fn new() -> Result<CpuMemory, Status> {
        let mut pointer = ptr::null_mut();
        // SAFETY: writes the address of a new value.
        check(unsafe {
            (ort::api().CreateCpuMemoryInfo)(
                sys::OrtAllocatorType::OrtDeviceAllocator,
                sys::OrtMemType::OrtMemTypeDefault,
                &mut pointer,
            )
        })?;
        let pointer =
            NonNull::new(pointer).ok_or_else(|| Status::from("no memory information".to_owned()))?;
        Ok(CpuMemory { pointer })
    }
}

impl Drop for CpuMemory {
    fn drop(&mut self) {
        // SAFETY: made by `new`, released once.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.pointer.as_ptr()) }
    }
}

fn element_type(datatype: DataType) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as Type;
    match datatype {
        DataType::Bool => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Fp32 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        DataType::Bf16 => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
    }
}

/// The protocol's name for ONNX Runtime's type; `None` for those the protocol cannot carry.
pub(crate) fn datatype(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        TensorElementType::Bfloat16 => DataType::Bf16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_copied_only_when_they_are_not_aligned() {
        let mut words = vec![0_u64; 4];
        words[0] = 0x0807_0605_0403_0201;
        let whole = Bytes::from_owner(Words { words, length: 30 });
        assert_eq!(aligned(&whole, 8).as_ptr(), whole.as_ptr());
        let odd = whole.slice(1..);
        let copy = aligned(&odd, 4);
        assert_eq!((copy.as_ptr().align_offset(8), &copy), (0, &odd));
        assert_eq!(aligned(&odd, 1).as_ptr(), odd.as_ptr());
        assert_eq!(aligned(&whole.slice(5..5), 8).len(), 0);
    }
}
