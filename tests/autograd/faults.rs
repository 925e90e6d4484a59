//! What an error leaves behind: nothing. A fault of the data belongs to the values that depend on it, for good, and to no
//! other; what was written in place goes back to what it was; a lack of resources leaves pending work pending.

use wgrad::{BackwardOptions, DType, Device, Error, Result, Tensor, no_grad};

use crate::support::{devices, fresh};

/// An index that nobody knows before it is computed.
fn computed(index: &[f32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(index, [index.len()], device)?.to_dtype(DType::I64)
}

/// The name of the operation and the line of its call, of an error that came late.
fn late(error: Error) -> (&'static str, i64, u32) {
    match error {
        Error::Index { op, index, called_at: Some(line), .. } => {
            assert!(line.file().ends_with("faults.rs"), "{line}");
            (op, index, line.line())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fault_belongs_to_what_depends_on_it() -> Result<()> {
    for device in devices() {
        let table = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2], &device)?;
        let index = computed(&[2.0, 7.0], &device)?;
        let (bad, line) = (table.index_select(0, &index)?, line!());
        let good = table.mul(2.0)?;
        let both = bad.sum()?.add(good.sum()?)?;
        assert_eq!(good.to_vec::<f32>()?, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0], "{device}");
        for _ in 0..2 {
            let error = bad.to_vec::<f32>().unwrap_err();
            assert_eq!(late(error), ("index_select", 7, line), "{device}");
            assert_eq!(late(both.item::<f32>().unwrap_err()), ("index_select", 7, line), "{device}");
        }
        // Made from it later, and asked for together with others.
        let later = bad.exp()?;
        let other = table.add(1.0)?;
        assert_eq!(late(Tensor::eval_all([&later, &other]).unwrap_err()).0, "index_select");
        assert_eq!(other.sum()?.item::<f32>()?, 27.0);
        assert_eq!(good.sum()?.item::<f32>()?, 42.0);
        assert_eq!(index.to_vec::<i64>()?, [2, 7]);
    }
    Ok(())
}

#[test]
fn an_index_whose_values_are_at_hand_is_checked_at_the_call() -> Result<()> {
    for device in devices() {
        let table = Tensor::ones([4, 2], &device)?;
        let index = Tensor::from_slice(&[2i64, 4, 1], [3], &device)?;
        let fails = |result: Result<Tensor>| matches!(result, Err(Error::Index { index: 4, size: 4, .. }));
        assert!(fails(index.embedding(&table, None)), "{device}");
        assert!(fails(table.index_select(0, &index)), "{device}");
        assert!(fails(index.unsqueeze(0)?.squeeze()?.embedding(&table, None)), "{device}");
        assert!(fails(table.take_along_dim(&index.unsqueeze(1)?, 0)), "{device}");
        let logits = Tensor::ones([3, 4], &device)?.requires_grad_(true)?;
        assert!(fails(logits.cross_entropy(&index)), "{device}");
        // A part of it without the bad one.
        assert_eq!(index.narrow(0, 0, 1)?.embedding(&table, None)?.sum()?.item::<f32>()?, 2.0, "{device}");
        // What the program computes is checked when it is computed.
        let bad = table.index_select(0, &index.add(1)?)?;
        assert!(matches!(bad.eval(), Err(Error::Index { index: 5, .. })), "{device}");
    }
    Ok(())
}

/// A small model with a momentum, whose third batch may have a bad index.
struct Model {
    table: Tensor,
    weight: Tensor,
    momentum: Vec<Tensor>,
}

impl Model {
    fn new(device: &Device) -> Result<Model> {
        let numbers = |n: usize| (0..n).map(|i| (i * 7 % 11) as f32 / 11.0 - 0.4).collect::<Vec<f32>>();
        let table = Tensor::from_slice(&numbers(12), [4, 3], device)?.requires_grad_(true)?;
        let weight = Tensor::from_slice(&numbers(6), [3, 2], device)?.requires_grad_(true)?;
        let momentum = vec![table.zeros_like()?, weight.zeros_like()?];
        Ok(Model { table, weight, momentum })
    }

    /// The loss; the update is recorded, and nothing is read.
    fn step(&self, index: &[f32], device: &Device) -> Result<Tensor> {
        let index = computed(index, device)?;
        let loss = index.embedding(&self.table, None)?.matmul(&self.weight)?.tanh()?.pow(2.0)?.mean()?;
        for parameter in [&self.table, &self.weight] {
            parameter.zero_grad();
        }
        loss.backward()?;
        no_grad(|| {
            for (parameter, momentum) in [&self.table, &self.weight].into_iter().zip(&self.momentum) {
                let grad = parameter.grad().expect("backward gave one");
                momentum.mul_(0.9)?.add_(&grad)?;
                parameter.sub_(momentum.mul(0.1)?)?;
            }
            Ok(())
        })?;
        Ok(loss)
    }

    fn bits(&self) -> Result<Vec<u32>> {
        let mut bits = Vec::new();
        for tensor in [&self.table, &self.weight].into_iter().chain(&self.momentum) {
            bits.extend(tensor.to_vec::<f32>()?.into_iter().map(f32::to_bits));
        }
        Ok(bits)
    }
}

const GOOD: [[f32; 2]; 4] = [[0.0, 1.0], [2.0, 3.0], [1.0, 1.0], [3.0, 0.0]];

#[test]
fn a_loop_that_goes_on_after_a_bad_batch_ends_as_if_it_had_not_been_there() -> Result<()> {
    for device in devices() {
        let (clean, caught) = (Model::new(&device)?, Model::new(&device)?);
        for index in GOOD {
            clean.step(&index, &device)?.item::<f32>()?;
        }
        let mut errors = 0;
        for index in [GOOD[0], GOOD[1], [2.0, 9.0], GOOD[2], [-1.0, 0.0], GOOD[3]] {
            if let Err(error) = caught.step(&index, &device)?.item::<f32>() {
                assert_eq!(late(error).0, "embedding");
                errors += 1;
            }
        }
        assert_eq!(errors, 2, "{device}");
        assert_eq!(caught.bits()?, clean.bits()?, "{device}");
    }
    Ok(())
}

#[test]
fn a_fault_met_late_is_reported_at_the_read_and_takes_the_weights_back_to_before_it() -> Result<()> {
    for device in devices() {
        let (clean, caught) = (Model::new(&device)?, Model::new(&device)?);
        for index in &GOOD[..2] {
            clean.step(index, &device)?;
        }
        // Steps are evaluated on the way, though nobody reads them.
        let mut loss = caught.step(&GOOD[0], &device)?;
        for index in [GOOD[1], [0.0, 4.0], GOOD[2], GOOD[3], GOOD[0], GOOD[1]] {
            loss = caught.step(&index, &device)?;
        }
        let (op, index, _) = late(loss.item::<f32>().unwrap_err());
        assert_eq!((op, index), ("embedding", 4), "{device}");
        assert_eq!(caught.bits()?, clean.bits()?, "{device}");
        // And on it goes.
        caught.step(&GOOD[2], &device)?;
        clean.step(&GOOD[2], &device)?;
        assert_eq!(caught.bits()?, clean.bits()?, "{device}");
    }
    Ok(())
}

#[test]
fn a_gradient_goes_back_to_the_sum_before_the_fault() -> Result<()> {
    for device in devices() {
        let table = Tensor::ones([3, 2], &device)?.requires_grad_(true)?;
        let backward = |index: &[f32]| computed(index, &device)?.embedding(&table, None)?.sum()?.backward();
        backward(&[3.0])?;
        assert!(table.grad().expect("backward gave one").eval().is_err());
        assert!(table.grad().is_none(), "{device}: there was none before");
        backward(&[1.0])?;
        backward(&[0.0, 5.0])?;
        assert!(table.grad().expect("backward gave one").eval().is_err());
        assert_eq!(table.grad().expect("of the first").to_vec::<f32>()?, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        backward(&[1.0])?;
        assert_eq!(table.grad().expect("of both").to_vec::<f32>()?, [0.0, 0.0, 2.0, 2.0, 0.0, 0.0]);
    }
    Ok(())
}

#[test]
fn views_and_aliases_go_back_with_their_storage() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], [2, 2], &device)?;
        let (row, alias) = (x.select(0, 1)?, x.detach());
        let bad = x.index_select(0, &computed(&[2.0], &device)?)?.squeeze_dim(0)?;
        row.mul_(10.0)?;
        row.add_(&bad)?;
        assert!(alias.eval().is_err(), "{device}");
        let all = &[1f32, 2.0, 3.0, 4.0];
        for (tensor, expected) in [(&alias, &all[..]), (&x, all), (&row, &all[2..])] {
            assert_eq!(tensor.to_vec::<f32>()?, expected, "{device}");
        }
    }
    Ok(())
}

#[test]
fn a_lack_of_memory_leaves_pending_work_pending() -> Result<()> {
    for device in fresh(&Default::default()) {
        let x = Tensor::ones([1 << 18], &device)?.mul(3.0)?;
        x.eval()?;
        let blocker = Tensor::ones([1 << 22], &device)?.mul(2.0)?;
        blocker.eval()?;
        let y = x.cumsum(0)?.add(1.0)?.cumsum(0)?;
        device.trim();
        let used = device.stats().bytes_in_use;
        device.set_memory_limit(Some(used + 1024));
        assert!(matches!(y.eval(), Err(Error::OutOfMemory { .. })), "{device}");
        assert!(matches!(y.eval(), Err(Error::OutOfMemory { .. })), "{device}");
        drop(blocker);
        device.set_memory_limit(None);
        assert_eq!(y.narrow(0, 0, 2)?.to_vec::<f32>()?, [4.0, 11.0], "{device}");
    }
    Ok(())
}

#[test]
fn an_error_in_a_hook_at_the_root_leaves_the_graph_as_it_was() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[2f32, 3.0], [2], &device)?.requires_grad_(true)?;
        let loss = x.mul(&x)?.sum()?;
        let refuse = || Error::Argument { op: "hook", reason: "refused".into() };
        let hook = loss.register_hook(move |_| Err(refuse()))?;
        assert!(loss.backward_with(BackwardOptions::new()).is_err());
        hook.remove();
        loss.backward()?;
        assert_eq!(x.grad().expect("backward gave one").to_vec::<f32>()?, [4.0, 6.0]);
    }
    Ok(())
}

#[test]
fn a_fault_of_one_thread_is_none_of_another() -> Result<()> {
    for device in devices() {
        let table = Tensor::from_slice(&[1f32, 2.0, 3.0], [3], &device)?;
        let work = |bad: bool| -> Result<()> {
            for i in 0..40 {
                let last = if bad && i % 3 == 0 { 3.0 } else { 2.0 };
                let picked = table.index_select(0, &computed(&[0.0, last], &device)?)?.mul(2.0)?;
                match picked.to_vec::<f32>() {
                    Ok(values) => assert!(last == 2.0 && values == [2.0, 6.0], "{device}: {values:?}"),
                    Err(error) => assert!(last == 3.0, "{device}: {error}"),
                }
                assert_eq!(table.add(1.0)?.to_vec::<f32>()?, [2.0, 3.0, 4.0], "{device}");
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = [true, false, true].map(|bad| scope.spawn(move || work(bad))).into();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
    }
    Ok(())
}
