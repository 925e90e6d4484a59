//! The source of random arguments for hostile calls.

use wgrad::{DType, Device, Result, Tensor};

use super::make::Hostile;
use crate::program::{read, tensor};
use crate::random::SplitMix64;

/// Makes the arguments of a call, and notes their text in Rust.
pub struct Arguments {
    pub random: SplitMix64,
    pub device: Device,
    parts: Vec<String>,
    head: String,
    tail: String,
    receiver: Option<Tensor>,
    leaves: Vec<Tensor>,
    /// The number of elements of the largest operand.
    pub largest: usize,
    pub failed: bool,
    /// Whether the arguments are such that the call might succeed.
    pub mild: bool,
    tell: Box<dyn Fn(&str)>,
}

impl Arguments {
    pub fn new(mut random: SplitMix64, device: Device, tell: Box<dyn Fn(&str)>) -> Arguments {
        random.next();
        let mild = random.chance(45);
        Arguments {
            random,
            device,
            parts: Vec::new(),
            head: String::new(),
            tail: String::new(),
            receiver: None,
            leaves: Vec::new(),
            largest: 0,
            failed: false,
            mild,
            tell,
        }
    }

    pub fn receiver(&mut self) -> Tensor {
        let (tensor, text) = self.tensor("self");
        self.parts.push(text);
        self.receiver = Some(tensor.clone());
        tensor
    }

    pub fn make<T: Hostile>(&mut self, name: &str) -> T {
        let (value, text) = T::hostile(self, name);
        self.parts.push(text);
        value
    }

    /// Announces the call, before it is made.
    pub fn call(&mut self, receiver: &str, method: &str) {
        let mut parts = std::mem::take(&mut self.parts);
        let of = if receiver == "x." { format!("{}.", parts.remove(0)) } else { receiver.to_owned() };
        self.head = format!("{of}{method}({})", parts.join(", "));
        (self.tell)(&self.head);
    }

    /// Notes how the results are used.
    pub fn then(&mut self, what: &str) {
        if self.tail.is_empty() {
            self.tail = format!(", then {what}");
        }
    }

    pub fn text(&self) -> String {
        format!("{}{}", self.head, self.tail)
    }

    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    pub fn receiver_shape(&self) -> Option<Vec<usize>> {
        self.receiver.as_ref().map(|tensor| tensor.shape().to_vec())
    }

    /// Checks that the receiver can still be read after an error.
    pub fn receiver_is_readable(&self) -> Result<()> {
        match &self.receiver {
            Some(receiver) if receiver.numel() <= 4096 => read(receiver).map(drop),
            _ => Ok(()),
        }
    }

    fn shape(&mut self) -> Vec<usize> {
        const SHAPES: &[&[usize]] = &[
            &[],
            &[0],
            &[1],
            &[3],
            &[5],
            &[2, 3],
            &[3, 3],
            &[0, 3],
            &[3, 0],
            &[1, 1],
            &[2, 3, 4],
            &[2, 0, 4],
            &[1, 4, 4],
            &[2, 2, 5, 5],
            &[1, 3, 4, 6],
            &[2, 3, 2, 2, 2],
            &[300],
            &[17, 33],
            &[1, 2, 3, 2, 4, 4],
        ];
        if self.random.chance(3) {
            return vec![1; [7, 33, 63, 64, 65, 200][self.random.below(6)]];
        }
        SHAPES[self.random.below(SHAPES.len())].to_vec()
    }

    fn dtype(&mut self, name: &str) -> DType {
        let usual = match name {
            "index" | "indices" | "targets" | "repeats" => DType::I64,
            "mask" | "attn_mask" => DType::Bool,
            _ => DType::F32,
        };
        let dtype = if self.random.chance(if self.mild { 85 } else { 50 }) {
            usual
        } else {
            DType::ALL[self.random.below(DType::ALL.len())]
        };
        if self.device.supports(dtype) { dtype } else { DType::F32 }
    }

    /// A tensor of any shape, dtype and layout, with its text.
    pub fn tensor(&mut self, name: &str) -> (Tensor, String) {
        let first = self.receiver_shape();
        let shape = match first {
            Some(shape)
                if shape
                    .iter()
                    .try_fold(1usize, |n, &size| n.checked_mul(size))
                    .is_some_and(|n| n <= 4096)
                    && self.random.chance(if self.mild { 65 } else { 35 }) =>
            {
                shape
            }
            _ => self.shape(),
        };
        let dtype = self.dtype(name);
        let count: usize = shape.iter().product();
        let wild = !self.mild && self.random.chance(60);
        let data: Vec<f64> = (0..count).map(|i| self.number(i, dtype, wild)).collect();
        let sizes = if shape.len() > 8 { format!("[1; {}]", shape.len()) } else { format!("{shape:?}") };
        let mut text = format!("tensor({data:?}, {sizes}, {dtype:?})");
        if count > 12 {
            text = format!("tensor([{:?}, …], {sizes}, {dtype:?})", data[0]);
        }
        let made = tensor(&data, &shape, dtype, &self.device).and_then(|mut x| {
            if dtype.is_float() && self.random.chance(50) {
                x = x.requires_grad_(true)?;
                self.leaves.push(x.clone());
                text += ".requires_grad_(true)?";
            }
            if self.random.chance(30) {
                (x, text) = self.layout(&x, &text)?;
            }
            Ok(x)
        });
        let tensor = match made {
            Ok(tensor) => tensor,
            Err(_) => {
                Tensor::zeros((), (DType::F32, &Device::cpu())).unwrap_or_else(|error| panic!("{error}"))
            }
        };
        self.largest = self.largest.max(tensor.numel());
        (tensor, text)
    }

    /// The tensor in another layout.
    fn layout(&mut self, x: &Tensor, text: &str) -> Result<(Tensor, String)> {
        let rank = x.rank();
        Ok(match self.random.below(7) {
            0 if rank > 1 => (x.transpose(0, -1)?, format!("{text}.transpose(0, -1)?")),
            1 if rank > 0 => (x.slice(-1, None, None, 2)?, format!("{text}.slice(-1, None, None, 2)?")),
            2 if rank > 0 => (x.flip(0)?, format!("{text}.flip(0)?")),
            3 => (
                x.unsqueeze(0)?.expand(
                    [3].into_iter().chain(x.shape().iter().map(|&n| n as i64)).collect::<Vec<i64>>(),
                )?,
                format!("{text}.expand([3, ..])?"),
            ),
            4 if !self.mild => {
                let size = [1i64 << 31, 1 << 40, 1 << 62][self.random.below(3)];
                let one = Tensor::ones((), (x.dtype(), &self.device))?;
                (one.expand([size])?, format!("ones((), {:?}).expand([{size}])?", x.dtype()))
            }
            5 => (x.add(0i64)?, format!("{text}.add(0)?")),
            _ => (x.reshape(-1)?, format!("{text}.reshape(-1)?")),
        })
    }

    fn number(&mut self, i: usize, dtype: DType, wild: bool) -> f64 {
        if wild && self.random.chance(30) {
            let all = [
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                0.0,
                -0.0,
                -1.0,
                1e-40,
                3e38,
                -3e38,
                65504.0,
                2147483647.0,
                -2147483648.0,
                9223372036854775807.0,
                -9223372036854775808.0,
                1e12,
                255.0,
            ];
            return all[self.random.below(all.len())];
        }
        match dtype {
            DType::Bool => f64::from(u8::from(self.random.chance(50))),
            dtype if dtype.is_float() => self.random.float(-2.0, 2.0),
            _ => ((i * 7 + self.random.below(3)) % 4) as f64,
        }
    }

    /// An integer: a small one, or one at the limits of some type.
    pub fn integer(&mut self) -> i128 {
        if self.random.chance(if self.mild { 97 } else { 60 }) {
            return match self.receiver.as_ref().map(Tensor::rank) {
                Some(rank) if rank > 0 && self.random.chance(40) => {
                    self.random.between(-(rank as i64), rank as i64 - 1).into()
                }
                _ => [0, 1, 1, 2, 2, 3, 4, 5, -1, -2][self.random.below(10)],
            };
        }
        let all = [
            -3,
            7,
            16,
            31,
            64,
            65,
            100,
            1000,
            65_535,
            65_536,
            1 << 20,
            1 << 24,
            (1 << 31) - 1,
            1 << 31,
            -(1 << 31),
            1 << 32,
            1 << 40,
            -(1 << 40),
            1 << 53,
            1 << 60,
            1 << 61,
            1 << 62,
            i128::from(i64::MAX),
            i128::from(i64::MAX) - 1,
            i128::from(i64::MIN),
            i128::from(i64::MIN) + 1,
            i128::from(u64::MAX),
        ];
        all[self.random.below(all.len())]
    }

    pub fn float(&mut self) -> f64 {
        if self.random.chance(if self.mild { 95 } else { 55 }) {
            return [0.0, 1.0, 2.0, 0.5, -1.0, 1e-5, 0.1, 3.0][self.random.below(8)];
        }
        let all = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            1e20,
            -1e20,
            1e308,
            5e-324,
            1e-40,
            3e38,
            9.3e18,
            -9.3e18,
            2147483648.5,
            1e10,
        ];
        all[self.random.below(all.len())]
    }

    /// The length of a list.
    pub fn count(&mut self) -> usize {
        match &self.receiver {
            Some(x) if x.rank() < 8 && self.random.chance(40) => x.rank(),
            _ => [0, 1, 1, 2, 2, 3, 4, 6][self.random.below(8)],
        }
    }
}
