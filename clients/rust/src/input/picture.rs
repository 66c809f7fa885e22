//! An image file as a tensor: in the colours, layout, size and scale that a model's input takes.

use std::io::Cursor;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use half::{bf16, f16};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};

use super::Wanted;
use crate::{DataType, Element, Tensor};

/// The most elements a picture may become; a server that lies about a model cannot make us allocate more.
const MAX_ELEMENTS: u64 = 1 << 28;

/// What pixel values, 0 to 255, are multiplied by: `N` or `N/D`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale(f64);

impl Default for Scale {
    fn default() -> Scale {
        Scale(1.0)
    }
}

impl FromStr for Scale {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Scale> {
        let (dividend, divisor) = text.split_once('/').unwrap_or((text, "1"));
        let (dividend, divisor) = (dividend.trim().parse::<f64>(), divisor.trim().parse::<f64>());
        let scale = dividend.ok().zip(divisor.ok()).map(|(dividend, divisor)| dividend / divisor);
        let scale = scale.filter(|scale| scale.is_finite() && *scale > 0.0);
        scale
            .map(Scale)
            .ok_or_else(|| anyhow!("write it as a positive number or fraction, such as 2 or 1/255"))
    }
}

/// Reads a PNG or JPEG file.
pub(super) fn decode(file: &[u8]) -> anyhow::Result<DynamicImage> {
    // The reader's own limits bound what a small file can grow to.
    Ok(ImageReader::new(Cursor::new(file)).with_guessed_format()?.decode()?)
}

/// The tensor for `wanted`.
pub(super) fn tensor(picture: &DynamicImage, wanted: Wanted<'_>, scale: Scale) -> anyhow::Result<Tensor> {
    let datatype = wanted.datatype()?;
    let layout = Layout::of(&wanted.input.shape).with_context(|| no_place(wanted))?;
    let (width, height) = layout.size(picture)?;
    let resized;
    let picture = if (width, height) == (picture.width(), picture.height()) {
        picture
    } else {
        resized = picture.resize_exact(width, height, FilterType::Triangle);
        &resized
    };
    let pixels = match layout.colours {
        Colours::Gray => picture.to_luma8().into_raw(),
        Colours::Rgb => picture.to_rgb8().into_raw(),
    };
    let mut data = Vec::with_capacity(pixels.len() * datatype.element_size().unwrap_or_default());
    for pixel in layout.arranged(&pixels) {
        let value = f64::from(pixel) * scale.0;
        append(datatype, value, &mut data).ok_or_else(|| {
            anyhow!(
                "its pixel value {pixel} times {} is {value}, but {wanted}; give another --scale",
                scale.0
            )
        })?;
    }
    let shape = layout.shape(width, height);
    Ok(Tensor::new(&wanted.input.name, datatype, &shape, data)?)
}

fn no_place(wanted: Wanted<'_>) -> String {
    format!(
        "{wanted}, which is no place for an image: that would be [H,W], [1,H,W], [H,W,3], [3,H,W], [1,3,H,W], \
         [1,H,W,3] (or 1 for 3, -1 for a batch of 1), or [1,N] for a square gray image of N pixels"
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    Gray,
    Rgb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrangement {
    /// All rows, pixel by pixel, without a dimension of colours.
    Plane,
    /// All rows in one dimension.
    Flat,
    /// A plane for each colour.
    ChannelsFirst,
    /// The colours of each pixel side by side.
    ChannelsLast,
}

/// How an input of a model takes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Whether a dimension of 1 stands in front of the image's own.
    batch: bool,
    colours: Colours,
    arrangement: Arrangement,
    /// -1 leaves it to the image.
    height: i64,
    /// -1 leaves it to the image.
    width: i64,
}

impl Layout {
    /// The layout that a model's input of shape `takes` means, if any.
    fn of(takes: &[i64]) -> Option<Layout> {
        use Arrangement::{ChannelsFirst, ChannelsLast, Flat, Plane};
        use Colours::{Gray, Rgb};
        let layout = |batch, colours, arrangement, height: i64, width: i64| {
            Some(Layout { batch, colours, arrangement, height, width })
        };
        match *takes {
            [n] => square(n).and_then(|side| layout(false, Gray, Flat, side, side)),
            [-1 | 1, n] => square(n).and_then(|side| layout(true, Gray, Flat, side, side)),
            [height, width] => layout(false, Gray, Plane, height, width),
            [3, height, width] => layout(false, Rgb, ChannelsFirst, height, width),
            [height, width, 3] => layout(false, Rgb, ChannelsLast, height, width),
            [-1 | 1, height, width] => layout(true, Gray, Plane, height, width),
            [height, width, 1] => layout(false, Gray, ChannelsLast, height, width),
            [-1 | 1, 3, height, width] => layout(true, Rgb, ChannelsFirst, height, width),
            [-1 | 1, height, width, 3] => layout(true, Rgb, ChannelsLast, height, width),
            [-1 | 1, 1, height, width] => layout(true, Gray, ChannelsFirst, height, width),
            [-1 | 1, height, width, 1] => layout(true, Gray, ChannelsLast, height, width),
            _ => None,
        }
    }

    /// The width and height that `picture` shall have.
    fn size(&self, picture: &DynamicImage) -> anyhow::Result<(u32, u32)> {
        let dim = |takes: i64, own: u32| if takes == -1 { Some(own) } else { u32::try_from(takes).ok() };
        let size = dim(self.width, picture.width()).zip(dim(self.height, picture.height()));
        let elements = |(width, height)| u64::from(width) * u64::from(height) * 3;
        size.filter(|size| elements(*size) > 0 && elements(*size) <= MAX_ELEMENTS).ok_or_else(|| {
            anyhow!(
                "an image of height {} and width {} cannot be made of it; the model's input must be of 1 to {} pixels",
                self.height,
                self.width,
                MAX_ELEMENTS / 3
            )
        })
    }

    /// `pixels`, whose colours stand side by side, in the layout's order.
    fn arranged<'a>(&self, pixels: &'a [u8]) -> Box<dyn Iterator<Item = u8> + 'a> {
        match (self.colours, self.arrangement) {
            (Colours::Rgb, Arrangement::ChannelsFirst) => {
                Box::new((0..3).flat_map(|colour| pixels.iter().skip(colour).step_by(3).copied()))
            }
            _ => Box::new(pixels.iter().copied()),
        }
    }

    fn shape(&self, width: u32, height: u32) -> Vec<i64> {
        let (width, height) = (i64::from(width), i64::from(height));
        let channels = match self.colours {
            Colours::Gray => 1,
            Colours::Rgb => 3,
        };
        let mut shape = match self.arrangement {
            Arrangement::Plane => vec![height, width],
            Arrangement::Flat => vec![height * width],
            Arrangement::ChannelsFirst => vec![channels, height, width],
            Arrangement::ChannelsLast => vec![height, width, channels],
        };
        if self.batch {
            shape.insert(0, 1);
        }
        shape
    }
}

/// The side of a square of `n` pixels.
fn square(n: i64) -> Option<i64> {
    let side = u64::try_from(n).ok()?.isqrt();
    let side = i64::try_from(side).ok()?;
    (side > 1 && side * side == n).then_some(side)
}

/// Appends `value`; integers are rounded. `None` when the type cannot hold it.
#[allow(clippy::cast_possible_truncation, reason = "a narrower float holds the nearest number it has")]
fn append(datatype: DataType, value: f64, data: &mut Vec<u8>) -> Option<()> {
    let whole = value.round() as i64;
    match datatype {
        DataType::Uint8 => u8::try_from(whole).ok()?.append(data),
        DataType::Uint16 => u16::try_from(whole).ok()?.append(data),
        DataType::Uint32 => u32::try_from(whole).ok()?.append(data),
        DataType::Uint64 => u64::try_from(whole).ok()?.append(data),
        DataType::Int8 => i8::try_from(whole).ok()?.append(data),
        DataType::Int16 => i16::try_from(whole).ok()?.append(data),
        DataType::Int32 => i32::try_from(whole).ok()?.append(data),
        DataType::Int64 => whole.append(data),
        DataType::Fp16 => f16::from_f64(value).append(data),
        DataType::Bf16 => bf16::from_f64(value).append(data),
        DataType::Fp32 => (value as f32).append(data),
        DataType::Fp64 => value.append(data),
        DataType::Bool | DataType::Bytes => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorMetadata;
    use image::{Rgb, RgbImage};

    /// Two by two: red and green above, blue and white below.
    fn picture() -> DynamicImage {
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
        let image = RgbImage::from_fn(2, 2, |x, y| Rgb(colours[(y * 2 + x) as usize]));
        DynamicImage::ImageRgb8(image)
    }

    fn made(picture: &DynamicImage, datatype: &str, takes: &[i64], scale: &str) -> Result<Tensor, String> {
        let input =
            TensorMetadata { name: "x".to_owned(), datatype: datatype.to_owned(), shape: takes.to_vec() };
        let wanted = Wanted { model: "m", input: &input };
        tensor(picture, wanted, scale.parse().unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_shape_says_how_an_image_is_laid_out() {
        for (takes, shape) in [
            (&[4][..], &[4][..]),
            (&[-1, 4], &[1, 4]),
            (&[2, 2], &[2, 2]),
            (&[-1, 2, 2], &[1, 2, 2]),
            (&[1, 2, 2], &[1, 2, 2]),
            (&[3, 2, 2], &[3, 2, 2]),
            (&[2, 2, 3], &[2, 2, 3]),
            (&[-1, -1, 3], &[2, 2, 3]),
            (&[2, 2, 1], &[2, 2, 1]),
            (&[-1, 3, -1, -1], &[1, 3, 2, 2]),
            (&[1, 5, 7, 3], &[1, 5, 7, 3]),
            (&[-1, 1, 8, 8], &[1, 1, 8, 8]),
            (&[-1, 8, 8, 1], &[1, 8, 8, 1]),
        ] {
            assert_eq!(made(&picture(), "FP32", takes, "1").unwrap().shape, shape, "{takes:?}");
        }
    }

    #[test]
    fn colours_stand_side_by_side_or_in_planes() {
        let last = made(&picture(), "UINT8", &[2, 2, 3], "1").unwrap();
        assert_eq!(last.to_vec::<u8>().unwrap(), [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
        let first = made(&picture(), "UINT8", &[3, 2, 2], "1").unwrap();
        assert_eq!(first.to_vec::<u8>().unwrap(), [255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255]);
        let gray = made(&picture(), "UINT8", &[2, 2], "1").unwrap();
        assert_eq!(gray.to_vec::<u8>().unwrap()[3], 255);
    }

    #[test]
    fn values_are_scaled_and_whole_numbers_rounded() {
        let white = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(1, 1, image::Luma([200])));
        let value = |datatype, scale| made(&white, datatype, &[1, 1, 1], scale);
        assert_eq!(value("FP32", "1/255").unwrap().as_f32().unwrap(), [200.0 / 255.0]);
        assert_eq!(value("FP64", "16/255").unwrap().to_vec::<f64>().unwrap(), [200.0 * (16.0 / 255.0)]);
        assert_eq!(value("INT8", "16/255").unwrap().to_vec::<i8>().unwrap(), [13]);
        assert_eq!(
            value("INT8", "1").unwrap_err(),
            r#"its pixel value 200 times 1 is 200, but input "x" of model "m" takes INT8 [1,1,1]; give another --scale"#
        );
    }

    #[test]
    fn an_input_that_takes_no_image_is_told_what_would() {
        for takes in [&[][..], &[-1, 63], &[-1, 4, 2, 2], &[8, 3, 2, 2], &[1, 1, 1, 1, 1]] {
            let error = made(&picture(), "FP32", takes, "1").unwrap_err();
            assert!(error.contains("which is no place for an image"), "{takes:?}: {error}");
        }
        let error = made(&picture(), "FP32", &[i64::MAX, 9], "1").unwrap_err();
        assert!(error.contains("cannot be made of it"), "{error}");
        assert!(made(&picture(), "FP32", &[0, 9], "1").is_err());
        assert!(made(&picture(), "BOOL", &[2, 2], "1").is_err());
    }

    #[test]
    fn a_scale_is_a_number_or_a_fraction() {
        assert_eq!("1/255".parse::<Scale>().unwrap(), Scale(1.0 / 255.0));
        assert_eq!("16".parse::<Scale>().unwrap(), Scale(16.0));
        for bad in ["", "/", "1/0", "0", "-1", "a", "1/2/3", "NaN", "inf"] {
            assert!(bad.parse::<Scale>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_png_comes_back_and_a_broken_one_does_not() {
        let mut file = Vec::new();
        picture().write_to(&mut Cursor::new(&mut file), image::ImageFormat::Png).unwrap();
        assert_eq!(decode(&file).unwrap().to_rgb8(), picture().to_rgb8());
        assert!(decode(&file[..file.len() / 2]).is_err());
        assert!(decode(b"GIF89a").is_err());
    }
}
