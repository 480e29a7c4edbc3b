//! Border of `crate::msgpack`: Python values to canonical msgpack and back.
use pyo3::{
    prelude::*,
    types::{PyBool, PyBytes, PyInt, PyList, PyString, PyTuple},
};

use super::errors::{CodecError, LimitExceeded};
use crate::{
    limits::{CODEC_DEPTH_MAX, CODEC_SIZE_BYTES_MAX},
    msgpack::{DecodeError, Reader, Token, Writer},
};

fn refuse(error: DecodeError) -> PyErr {
    CodecError::new_err(error.text())
}

fn write(writer: &mut Writer, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        ensure_room(writer, bytes.len())?;
        writer.bytes(bytes);
    } else if let Ok(flag) = value.cast::<PyBool>() {
        writer.bool(flag.is_true());
    } else if value.is_instance_of::<PyInt>() {
        let number = value
            .extract()
            .map_err(|_| CodecError::new_err("numbers must lie between 0 and 2**64 - 1"))?;
        writer.unsigned(number);
    } else if let Ok(items) = value.cast::<PyTuple>() {
        open(writer, items.len(), depth)?;
        for item in items {
            write(writer, &item, depth + 1)?;
        }
    } else if let Ok(items) = value.cast::<PyList>() {
        let items = items.to_tuple();
        open(writer, items.len(), depth)?;
        for item in items {
            write(writer, &item, depth + 1)?;
        }
    } else if let Ok(text) = value.cast::<PyString>() {
        let text = text
            .to_str()
            .map_err(|_| CodecError::new_err("a string is not UTF-8"))?;
        ensure_room(writer, text.len())?;
        writer.text(text);
    } else if value.is_none() {
        writer.nil();
    } else {
        return Err(CodecError::new_err(format!(
            "no canonical form for {}",
            value.get_type().name()?
        )));
    }
    ensure_room(writer, 0)
}

fn open(writer: &mut Writer, count: usize, depth: usize) -> PyResult<()> {
    if depth == CODEC_DEPTH_MAX {
        return Err(refuse(DecodeError::TooDeep));
    }
    ensure_room(writer, count)?;
    writer.array(count);
    Ok(())
}

fn ensure_room(writer: &Writer, more: usize) -> PyResult<()> {
    if writer.len() + more > CODEC_SIZE_BYTES_MAX {
        return Err(LimitExceeded::new_err("the encoded value is too large"));
    }
    Ok(())
}

fn read<'py>(
    py: Python<'py>,
    reader: &mut Reader<'_>,
    depth: usize,
) -> PyResult<Bound<'py, PyAny>> {
    Ok(match reader.token().map_err(refuse)? {
        Token::Nil => py.None().into_bound(py),
        Token::Bool(flag) => PyBool::new(py, flag).to_owned().into_any(),
        Token::Unsigned(number) => number.into_pyobject(py)?.into_any(),
        Token::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Token::Text(text) => PyString::new(py, text).into_any(),
        Token::Array(count) => {
            if depth == CODEC_DEPTH_MAX {
                return Err(refuse(DecodeError::TooDeep));
            }
            let items: Vec<_> = (0..count)
                .map(|_| read(py, reader, depth + 1))
                .collect::<PyResult<_>>()?;
            PyTuple::new(py, items)?.into_any()
        }
    })
}

#[pyfunction]
fn codec_encode<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let mut writer = Writer::new();
    write(&mut writer, value, 0)?;
    Ok(PyBytes::new(value.py(), &writer.into_bytes()))
}

#[pyfunction]
fn codec_decode<'py>(py: Python<'py>, data: &[u8], size_max: usize) -> PyResult<Bound<'py, PyAny>> {
    if data.len() > size_max {
        return Err(CodecError::new_err(format!(
            "{} bytes are more than the {size_max} allowed here",
            data.len()
        )));
    }
    let mut reader = Reader::new(data);
    let value = read(py, &mut reader, 0)?;
    reader.finish().map_err(refuse)?;
    Ok(value)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(codec_encode, module)?)?;
    module.add_function(wrap_pyfunction!(codec_decode, module)?)
}
