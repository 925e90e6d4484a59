//! Tensors of a safetensors file, and the layouts that cases ask for.

use std::collections::HashMap;

use serde_json::Value as Json;
use wgrad::{Device, Element, Tensor, bf16, f16};

use crate::{Outcome, words};

/// The tensors of a file: a length, a JSON header with dtype, shape and place of each, their bytes.
pub struct Tensors {
    header: HashMap<String, Json>,
    bytes: &'static [u8],
}

fn list(json: &Json) -> Vec<isize> {
    json.as_array().into_iter().flatten().map(|n| n.as_i64().unwrap_or(0) as isize).collect()
}

impl Tensors {
    pub fn read(file: &'static [u8]) -> Tensors {
        let (length, rest) = file.split_at(8);
        let (header, bytes) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        Tensors { header: serde_json::from_slice(header).unwrap(), bytes }
    }

    pub fn get(&self, key: &str, device: &Device) -> Outcome<Tensor> {
        let entry = self.header.get(key).ok_or_else(|| format!("no tensor {key:?}"))?;
        let place = list(&entry["data_offsets"]);
        let bytes = &self.bytes[place[0] as usize..place[1] as usize];
        let shape = list(&entry["shape"]);
        fn make<T: Element>(bytes: &[u8], shape: &[isize], device: &Device) -> Outcome<Tensor> {
            Tensor::from_slice(&T::from_bytes(bytes), shape, device).map_err(words)
        }
        match entry["dtype"].as_str() {
            Some("F32") => make::<f32>(bytes, &shape, device),
            Some("F16") => make::<f16>(bytes, &shape, device),
            Some("BF16") => make::<bf16>(bytes, &shape, device),
            Some("I64") => make::<i64>(bytes, &shape, device),
            Some("I32") => make::<i32>(bytes, &shape, device),
            Some("U8") => make::<u8>(bytes, &shape, device),
            Some("BOOL") => make::<bool>(bytes, &shape, device),
            other => Err(format!("dtype {other:?} of {key:?}")),
        }
    }
}

/// The elements that strides pick from a piece of storage, as a view whose dims lie in memory in the order of the
/// strides, so that the operator under test gets a transposed input.
pub fn strided(storage: &Tensor, layout: &Json) -> Outcome<Tensor> {
    let (shape, strides) = (list(&layout["shape"]), list(&layout["stride"]));
    let offset = layout["offset"].as_i64().unwrap_or(0);
    if shape.contains(&0) {
        return storage.narrow(0, 0, 0).and_then(|x| x.reshape(shape)).map_err(words);
    }
    let mut order: Vec<usize> = (0..shape.len()).collect();
    order.sort_by_key(|&dim| std::cmp::Reverse(strides[dim]));
    let sizes: Vec<isize> = order.iter().map(|&dim| shape[dim]).collect();
    let mut places = vec![offset];
    for &dim in &order {
        let (size, stride) = (shape[dim] as i64, strides[dim] as i64);
        places = places.iter().flat_map(|&place| (0..size).map(move |i| place + i * stride)).collect();
    }
    let places = Tensor::from_slice(&places, places.len(), storage.device()).map_err(words)?;
    let mut back = vec![0i64; order.len()];
    for (position, &dim) in order.iter().enumerate() {
        back[dim] = position as i64;
    }
    let picked = storage.index_select(0, &places).and_then(|x| x.reshape(sizes)).map_err(words)?;
    picked.permute(back).map_err(words)
}
