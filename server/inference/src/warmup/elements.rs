//! The elements of a sample's input: zeros, random ones, or those of a file.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use half::{bf16, f16};
use model::{DataType, bytes_tensor, element_count};

use crate::config::{
    MOST_BYTES, MOST_CHARACTERS, Sample, SampleInput, Source, datatype_name, datatype_number,
};
use crate::repository::inside;

/// Where the files are, in the model's directory.
const DIRECTORY: &str = "warmup";

/// The elements of `input` of `sample`, packed. Files are in `directory`, that of `model`.
///
/// # Errors
/// The field that is wrong, its value, and what to do.
pub(super) fn of(
    input: &SampleInput,
    sample: &Sample,
    model: &str,
    directory: &Path,
) -> Result<Bytes, String> {
    let count = element_count(&input.dims).map_err(|error| format!("dims is {}, but {error}", input.dims))?;
    match &input.source {
        Source::Zero => Ok(zeros(input.datatype, count)),
        Source::Random => Ok(random(input.datatype, count, &input.name)),
        Source::File(file) => {
            let problem = |problem: String| format!("input_data_file is {file:?}, {problem}");
            let path = inside(directory, DIRECTORY).and_then(|directory| inside(&directory, file));
            let path = path.ok_or_else(|| problem(format!("which leaves {model}/{DIRECTORY}")))?;
            read(&path, input, count, sample.requests).map_err(problem)
        }
    }
}

/// Zeros; strings are empty.
fn zeros(datatype: DataType, count: usize) -> Bytes {
    // The length of an empty string is zero, too.
    vec![0; count * datatype.element_size().unwrap_or(bytes_tensor::LENGTH_SIZE)].into()
}

/// Elements that hardly any model refuses: floats between 0 and 1, both excluded; 0 and 1 for whole numbers, so that
/// they are indexes of any table; strings of 1 to 3 digits, so that they can be read as numbers. They are the same for
/// each load, and others for inputs of other names.
fn random(datatype: DataType, count: usize, name: &str) -> Bytes {
    let mut random = Random::of(name);
    let size = datatype.element_size().unwrap_or(bytes_tensor::LENGTH_SIZE + usize::from(MOST_CHARACTERS));
    let mut data = Vec::with_capacity(count * size);
    for _ in 0..count {
        match datatype {
            DataType::Fp16 => data.extend(f16::from_f32(random.fraction()).to_le_bytes()),
            DataType::Bf16 => data.extend(bf16::from_f32(random.fraction()).to_le_bytes()),
            DataType::Fp32 => data.extend(random.fraction().to_le_bytes()),
            DataType::Fp64 => data.extend(f64::from(random.fraction()).to_le_bytes()),
            DataType::Bytes => {
                let length = 1 + random.below(MOST_CHARACTERS);
                let digits: Vec<u8> = (0..length).map(|_| b'0' + random.below(10)).collect();
                bytes_tensor::push(&mut data, &digits);
            }
            _ => {
                // The lowest byte of a whole number comes first.
                data.push(random.below(2));
                data.resize(data.len() + size - 1, 0);
            }
        }
    }
    data.into()
}

/// Numbers without a pattern (SplitMix64).
struct Random(u64);

impl Random {
    fn of(name: &str) -> Random {
        // FNV-1a.
        Random(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: u8) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((mixed ^ (mixed >> 31)) % u64::from(bound)).unwrap_or_default()
    }

    /// A number between 0 and 1, both excluded, that every type of floats holds exactly.
    fn fraction(&mut self) -> f32 {
        f32::from(1 + self.below(255)) / 256.0
    }
}

/// The file at `path`, which holds `count` elements of `input`, of which there are as many `requests`.
///
/// # Errors
/// A sentence that goes on after the file's name.
fn read(path: &Path, input: &SampleInput, count: usize, requests: u32) -> Result<Bytes, String> {
    let unreadable = |error: std::io::Error| format!("which cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("which is not a file".to_owned());
    }
    // Looked at before the bytes are in memory, and once more when they are.
    let has_size = |size: usize| match input.datatype.element_size() {
        Some(element) if size != count * element => Err(format!(
            "which has {size} bytes, but dims {} of {} take {}",
            input.dims,
            datatype_name(datatype_number(input.datatype)),
            count * element
        )),
        None if size.saturating_mul(requests as usize) > MOST_BYTES => Err(format!(
            "which has {size} bytes, more than {} GiB in a batch of {requests}",
            MOST_BYTES >> 30
        )),
        _ => Ok(()),
    };
    has_size(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
    let data = fs::read(path).map_err(unreadable)?;
    has_size(data.len())?;
    if input.datatype == DataType::Bytes {
        match bytes_tensor::count(&data) {
            Ok(packed) if packed == count => {}
            Ok(packed) => {
                return Err(format!("which has {packed} strings, but dims {} take {count}", input.dims));
            }
            Err(error) => return Err(format!("which is not well packed: {error}")),
        }
    }
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use model::Dims;

    use super::*;

    fn floats(datatype: DataType, data: &[u8]) -> Vec<f64> {
        let size = datatype.element_size().unwrap();
        let value = |bytes: &[u8]| match datatype {
            DataType::Fp16 => f16::from_le_bytes(bytes.try_into().unwrap()).into(),
            DataType::Bf16 => bf16::from_le_bytes(bytes.try_into().unwrap()).into(),
            DataType::Fp32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
            _ => f64::from_le_bytes(bytes.try_into().unwrap()),
        };
        data.chunks(size).map(value).collect()
    }

    #[test]
    fn random_elements_are_plain_values_of_their_type() {
        let of_fp32 = floats(DataType::Fp32, &random(DataType::Fp32, 1000, "x"));
        for datatype in DataType::ALL {
            let data = random(datatype, 1000, "x");
            match datatype {
                DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                    let values = floats(datatype, &data);
                    assert!(values.iter().all(|value| (1.0 / 256.0..1.0).contains(value)), "{datatype}");
                    assert_eq!(values, of_fp32, "the same in each type");
                }
                DataType::Bytes => {
                    let strings: Vec<_> =
                        bytes_tensor::elements(&data).map(|string| string.unwrap().to_vec()).collect();
                    let plain = |string: &Vec<u8>| {
                        (1..=3).contains(&string.len()) && string.iter().all(u8::is_ascii_digit)
                    };
                    assert!(strings.len() == 1000 && strings.iter().all(plain));
                }
                _ => {
                    let elements = data.chunks(datatype.element_size().unwrap());
                    assert_eq!(elements.len(), 1000, "{datatype}");
                    let plain = |bytes: &[u8]| bytes[0] <= 1 && bytes[1..].iter().all(|byte| *byte == 0);
                    assert!(elements.clone().all(plain), "{datatype}");
                    let ones = elements.filter(|bytes| bytes[0] == 1).count();
                    assert!((400..600).contains(&ones), "{datatype}: {ones} ones");
                }
            }
            assert_eq!(random(datatype, 1000, "x"), data, "the same each time");
            assert_ne!(random(datatype, 1000, "y"), data, "another input has others");
        }
        assert!(random(DataType::Int64, 0, "x").is_empty());
    }

    #[test]
    fn zeros_are_zeros_and_empty_strings() {
        assert_eq!(zeros(DataType::Fp64, 3), vec![0; 24]);
        assert_eq!(bytes_tensor::count(&zeros(DataType::Bytes, 3)), Ok(3));
    }

    /// What becomes of `file`, where `warmup/x.bin` holds `data`.
    fn from_file(datatype: DataType, dims: &[i64], file: &str, data: &[u8]) -> Result<Bytes, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("warmup/inner")).unwrap();
        fs::write(directory.path().join("warmup/x.bin"), data).unwrap();
        fs::write(directory.path().join("secret.bin"), data).unwrap();
        let source = Source::File(file.to_owned());
        let input = SampleInput { name: "x".to_owned(), datatype, dims: Dims::new(dims), source };
        let sample = Sample { name: "w".to_owned(), requests: 2, count: 1, inputs: Vec::new() };
        of(&input, &sample, "m", directory.path())
    }

    #[test]
    fn a_file_is_taken_as_it_is() {
        assert_eq!(from_file(DataType::Int16, &[2], "x.bin", &[1, 2, 3, 4]).unwrap(), vec![1, 2, 3, 4]);
        assert_eq!(from_file(DataType::Int16, &[2], "./x.bin", &[1, 2, 3, 4]).unwrap(), vec![1, 2, 3, 4]);
        let strings = [1, 0, 0, 0, b'a', 0, 0, 0, 0];
        assert_eq!(from_file(DataType::Bytes, &[2, 1], "x.bin", &strings).unwrap(), strings.to_vec());
        assert!(from_file(DataType::Bytes, &[0], "x.bin", &[]).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_does_not_hold_what_it_should_is_told_with_both_numbers() {
        let refused = |datatype, dims: &[i64], data: &[u8], reason: &str| {
            let error = from_file(datatype, dims, "x.bin", data).unwrap_err();
            assert_eq!(error, format!("input_data_file is \"x.bin\", which {reason}"));
        };
        refused(DataType::Fp32, &[2, 2], &[0; 12], "has 12 bytes, but dims [2,2] of TYPE_FP32 take 16");
        refused(DataType::Bool, &[], &[0, 0], "has 2 bytes, but dims [] of TYPE_BOOL take 1");
        refused(DataType::Bytes, &[3], &[0; 8], "has 2 strings, but dims [3] take 3");
        refused(
            DataType::Bytes,
            &[1],
            &[9, 0, 0, 0, 1],
            "is not well packed: the element at offset 0 says it has 9 bytes, but 1 are left",
        );
    }

    #[test]
    fn a_file_is_one_of_the_directory() {
        let refused = |file: &str, words: &str| {
            let error = from_file(DataType::Uint8, &[1], file, &[1]).unwrap_err();
            assert!(error.starts_with(&format!("input_data_file is {file:?}, {words}")), "{error}");
        };
        refused("../secret.bin", "which leaves m/warmup");
        refused("inner/../../secret.bin", "which leaves m/warmup");
        refused("/etc/hostname", "which leaves m/warmup");
        refused("missing.bin", "which cannot be read: No such file");
        refused("inner", "which is not a file");
        refused("", "which is not a file");
    }
}
