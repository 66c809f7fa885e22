//! A NumPy .npy file as a tensor.
//!
//! Its header is a Python dict in a fixed form, which is read here: a general reader of Python literals
//! recurses and multiplies without bounds on a file that lies.

use super::{Wanted, shape_text};
use crate::{DataType, Tensor};
use anyhow::{Context, anyhow, bail};

/// An array as a .npy file holds it, with its elements as the V2 protocol packs them.
#[derive(Debug, PartialEq, Eq)]
pub struct Array {
    /// The V2 type of its elements.
    pub datatype: DataType,
    /// Every dimension.
    pub shape: Vec<i64>,
    /// The elements, packed.
    pub data: Vec<u8>,
}

impl Array {
    /// The tensor for `wanted`, which must be of the array's type and shape.
    ///
    /// # Errors
    /// When it is of another type or shape.
    pub fn tensor(&self, wanted: Wanted<'_>) -> anyhow::Result<Tensor> {
        let datatype = wanted.datatype()?;
        if datatype != self.datatype {
            bail!(
                "it holds {} {}, but {wanted}; convert it with array.astype({:?}) before saving it",
                self.datatype,
                shape_text(&self.shape),
                numpy_name(datatype)
            );
        }
        let shape = wanted.fit(&self.shape)?;
        Ok(Tensor::new(&wanted.input.name, datatype, &shape, self.data.clone())?)
    }
}

/// Reads a .npy file.
///
/// # Errors
/// When it is not one, or holds what has no V2 type.
pub fn read(mut file: Vec<u8>) -> anyhow::Result<Array> {
    let (header, start) = header(&file)?;
    let element = Element::parse(quoted(field(header, "descr")?)?)?;
    let shape = shape(field(header, "shape")?)?;
    if field(header, "fortran_order")?.starts_with("True") && shape.len() > 1 {
        bail!("it is in Fortran order; save it with np.save(path, np.ascontiguousarray(array))");
    }
    let elements =
        shape.iter().try_fold(1_usize, |product, dim| product.checked_mul((*dim).try_into().ok()?));
    let expected = elements.and_then(|elements| elements.checked_mul(element.size));
    let mut data = file.split_off(start);
    if expected != Some(data.len()) {
        bail!(
            "it has {} bytes of data, but its header says shape {} of {} bytes each",
            data.len(),
            shape_text(&shape),
            element.size
        );
    }
    if element.big_endian {
        data.chunks_exact_mut(element.word).for_each(<[u8]>::reverse);
    }
    let data = match element.text {
        None => data,
        Some(text) => packed(&data, element.size, text)?,
    };
    Ok(Array { datatype: element.datatype, shape, data })
}

/// The header's text, and where the data begin.
fn header(file: &[u8]) -> anyhow::Result<(&str, usize)> {
    let rest = file.strip_prefix(b"\x93NUMPY").context("it is not a .npy file")?;
    let (version, rest) = rest.split_first_chunk::<2>().context("its header is cut short")?;
    let length = match version[0] {
        1 => rest.first_chunk::<2>().map(|bytes| (8 + 2_usize, usize::from(u16::from_le_bytes(*bytes)))),
        2 | 3 => rest.first_chunk::<4>().map(|bytes| (8 + 4, u32::from_le_bytes(*bytes) as usize)),
        other => bail!("it is a .npy file of version {other}; this client reads 1, 2 and 3"),
    };
    let (from, length) = length.context("its header is cut short")?;
    let text = file.get(from..from.saturating_add(length)).context("its header is cut short")?;
    Ok((std::str::from_utf8(text).context("its header is not text")?, from + length))
}

/// What follows `'name':` in the header.
fn field<'a>(header: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let key = format!("'{name}':");
    let at = header.find(&key).ok_or_else(|| anyhow!("its header has no {name:?}"))?;
    Ok(header[at + key.len()..].trim_start())
}

fn quoted(value: &str) -> anyhow::Result<&str> {
    let value = value.strip_prefix('\'').and_then(|value| value.split_once('\''));
    value.map(|(value, _)| value).context("it is a structured array; save one field of it at a time")
}

fn shape(value: &str) -> anyhow::Result<Vec<i64>> {
    let dims = value.strip_prefix('(').and_then(|value| value.split_once(')'));
    let (dims, _) = dims.context("the shape in its header is not a tuple")?;
    let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    dims.map(|dim| match dim.parse::<i64>() {
        Ok(dim) if dim >= 0 => Ok(dim),
        _ => Err(anyhow!("the shape in its header has the dimension {dim:?}")),
    })
    .collect()
}

/// How an array's elements lie in the file.
#[derive(Debug, PartialEq, Eq)]
struct Element {
    datatype: DataType,
    /// Bytes of one element.
    size: usize,
    /// Bytes of what has an order of bytes: the element, or one character of it.
    word: usize,
    big_endian: bool,
    text: Option<Text>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// `S`: bytes, with zeros after the last.
    Bytes,
    /// `U`: 4-byte characters, with zeros after the last.
    Unicode,
}

impl Element {
    /// Reads a type as NumPy writes it, such as `<f4`.
    fn parse(descr: &str) -> anyhow::Result<Element> {
        let unknown = || anyhow!("its elements are {descr:?}, which has no V2 type");
        let (order, kind) = descr.split_at_checked(1).ok_or_else(unknown)?;
        let text = match kind.get(..1) {
            Some("S") => Some(Text::Bytes),
            Some("U") => Some(Text::Unicode),
            _ => None,
        };
        let datatype = match kind {
            "b1" => DataType::Bool,
            "u1" => DataType::Uint8,
            "u2" => DataType::Uint16,
            "u4" => DataType::Uint32,
            "u8" => DataType::Uint64,
            "i1" => DataType::Int8,
            "i2" => DataType::Int16,
            "i4" => DataType::Int32,
            "i8" => DataType::Int64,
            "f2" => DataType::Fp16,
            "f4" => DataType::Fp32,
            "f8" => DataType::Fp64,
            _ if text.is_some() => DataType::Bytes,
            _ if kind.starts_with('O') => {
                bail!("it holds Python objects; convert it with array.astype(\"S\") or to a number type")
            }
            _ => return Err(unknown()),
        };
        let word = match text {
            None => datatype.element_size().ok_or_else(unknown)?,
            Some(Text::Bytes) => 1,
            Some(Text::Unicode) => 4,
        };
        let size = match text {
            None => Some(word),
            Some(_) => kind[1..].parse::<usize>().ok().and_then(|length| length.checked_mul(word)),
        };
        let size = size.filter(|size| *size > 0).ok_or_else(unknown)?;
        Ok(Element { datatype, size, word, big_endian: order == ">", text })
    }
}

/// Elements of fixed size as the elements of a BYTES tensor.
fn packed(data: &[u8], size: usize, text: Text) -> anyhow::Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(data.len());
    for element in data.chunks_exact(size) {
        let end = element.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bytes = match text {
            Text::Bytes => element[..end].to_vec(),
            Text::Unicode => utf8(&element[..end.next_multiple_of(4)])?.into_bytes(),
        };
        let length = u32::try_from(bytes.len()).context("a string has 4 GiB or more")?;
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(&bytes);
    }
    Ok(packed)
}

fn utf8(characters: &[u8]) -> anyhow::Result<String> {
    let character = |bytes: &[u8]| {
        let code = u32::from_le_bytes(bytes.try_into().expect("cut into 4 bytes"));
        char::from_u32(code).ok_or_else(|| anyhow!("a string holds {code:#x}, which is no character"))
    };
    characters.chunks_exact(4).map(character).collect()
}

fn numpy_name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "bool",
        DataType::Uint8 => "uint8",
        DataType::Uint16 => "uint16",
        DataType::Uint32 => "uint32",
        DataType::Uint64 => "uint64",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Fp16 => "float16",
        // NumPy has no bfloat16; its nearest relative at least tells what is meant.
        DataType::Fp32 | DataType::Bf16 => "float32",
        DataType::Fp64 => "float64",
        DataType::Bytes => "S",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorMetadata;
    use proptest::prelude::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
    }

    fn array(descr: &str, shape: &str, data: &[u8]) -> anyhow::Result<Array> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}    \n");
        read(npy(&header, data))
    }

    #[test]
    fn numbers_are_read_in_either_order_of_bytes() {
        let little = array("<i2", "(2,)", &[1, 0, 2, 0]).unwrap();
        assert_eq!(little, Array { datatype: DataType::Int16, shape: vec![2], data: vec![1, 0, 2, 0] });
        assert_eq!(array(">i2", "(2,)", &[0, 1, 0, 2]).unwrap(), little);
        let scalar = array("|b1", "()", &[1]).unwrap();
        assert_eq!(scalar, Array { datatype: DataType::Bool, shape: vec![], data: vec![1] });
        let empty = array("<f4", "(0, 3)", &[]).unwrap();
        assert_eq!(empty.shape, [0, 3]);
    }

    #[test]
    fn strings_lose_their_padding() {
        let bytes = array("|S3", "(2,)", b"ab\0\0\0\0").unwrap();
        assert_eq!(bytes.data, b"\x02\0\0\0ab\0\0\0\0");
        let unicode = array("<U2", "(1, 1)", b"\xe9\0\0\0\0\0\0\0").unwrap();
        assert_eq!(unicode.data, "\u{2}\0\0\0é".as_bytes());
    }

    #[track_caller]
    fn refused(read: anyhow::Result<Array>, text: &str) {
        let error = format!("{:#}", read.unwrap_err());
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_what_to_do() {
        refused(read(b"PK\x03\x04".to_vec()), "it is not a .npy file");
        refused(read(b"\x93NUMPY\x01\x00\xff".to_vec()), "its header is cut short");
        refused(read(b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()), "its header is cut short");
        refused(read(b"\x93NUMPY\x09\x00".to_vec()), "version 9");
        refused(array("<c8", "(1,)", &[0; 8]), r#"its elements are "<c8", which has no V2 type"#);
        refused(array("|O", "(1,)", &[]), "it holds Python objects");
        refused(
            array("<f4", "(3,)", &[0; 8]),
            "8 bytes of data, but its header says shape [3] of 4 bytes each",
        );
        refused(array("<f4", "(9223372036854775807, 9)", &[]), "0 bytes of data");
        refused(array("<f4", "(-1,)", &[]), r#"the dimension "-1""#);
        refused(array("<U1", "(1,)", &[0, 0xd8, 0, 0]), "0xd800, which is no character");
        let fortran = "{'descr': '<i1', 'fortran_order': True, 'shape': (1, 2)}";
        refused(read(npy(fortran, &[1, 2])), "np.ascontiguousarray");
        let structured = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}";
        refused(read(npy(structured, &[0; 4])), "structured array");
    }

    #[test]
    fn the_type_must_be_the_models() {
        let input =
            TensorMetadata { name: "image".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 2] };
        let wanted = Wanted { model: "digits", input: &input };
        let error = array("<f8", "(2,)", &[0; 16]).unwrap().tensor(wanted).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"it holds FP64 [2], but input "image" of model "digits" takes FP32 [-1,2]; convert it with array.astype("float32") before saving it"#
        );
        let tensor = array("<f4", "(2,)", &[0; 8]).unwrap().tensor(wanted).unwrap();
        assert_eq!(tensor, Tensor::from_slice("image", &[1, 2], &[0.0_f32; 2]).unwrap());
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(header: String, descr in "[<>|][a-zA-Z][0-9]{1,3}", shape in r"\([0-9,]*\)", data: Vec<u8>) {
            let _ = read(npy(&header, &data));
            let _ = array(&descr, &shape, &data);
            let _ = read([b"\x93NUMPY".as_slice(), &data].concat());
        }
    }
}
