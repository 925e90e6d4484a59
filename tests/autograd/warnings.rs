//! Warnings: what is logged about calls that are allowed and rarely meant, and how often.

use std::sync::Once;

use wgrad::{BackwardOptions, DType, Device, GradOptions, Reduction, Result, Tensor, grad};

/// Messages of this thread.
struct Messages;

thread_local! {
    static MESSAGES: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl log::Log for Messages {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }
    fn log(&self, record: &log::Record) {
        if record.level() == log::Level::Warn {
            MESSAGES.with_borrow_mut(|messages| messages.push(record.args().to_string()));
        }
    }
    fn flush(&self) {}
}

/// Collects what this thread is warned of from here on.
fn listen() -> impl Fn() -> Vec<String> {
    static LOGGER: Once = Once::new();
    LOGGER.call_once(|| {
        log::set_logger(&Messages).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    MESSAGES.take();
    || MESSAGES.take()
}

#[test]
fn reading_the_gradient_of_a_non_leaf_warns_once() -> Result<()> {
    let messages = listen();
    let x = Tensor::new([1.0], Device::cpu())?.requires_grad_(true)?;
    assert!(x.grad().is_none() && messages().is_empty());
    let y = x.mul(2.0)?;
    y.backward()?;
    assert!(y.grad().is_none() && y.grad().is_none());
    let warnings = messages();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("retain_grad") && warnings[0].contains("detach().requires_grad_(true)"));
    let z = x.mul(2.0)?;
    z.retain_grad()?;
    z.backward()?;
    assert!(z.grad().is_some() && messages().is_empty());
    Ok(())
}

type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// The losses that PyTorch warns of.
const LOSSES: [(&str, Loss); 5] = [
    ("mse_loss", |x, t| x.mse_loss(t, Reduction::Mean)),
    ("l1_loss", |x, t| x.l1_loss(t, Reduction::Sum)),
    ("huber_loss", |x, t| x.huber_loss(t, Reduction::Mean, 1.0)),
    ("smooth_l1_loss", |x, t| x.smooth_l1_loss(t, Reduction::None, 1.0)),
    ("smooth_l1_loss", |x, t| x.smooth_l1_loss(t, Reduction::Mean, 0.0)),
];

#[test]
fn a_loss_warns_once_a_line_of_a_target_that_broadcasts() -> Result<()> {
    let messages = listen();
    let (x, t) = (Tensor::ones([3, 1], DType::F32)?, Tensor::zeros([3], DType::F32)?);
    for (name, loss) in LOSSES {
        loss(&x, &t.reshape([3, 1])?)?;
        assert!(messages().is_empty(), "{name} of one shape");
        for _ in 0..3 {
            loss(&x, &t)?;
        }
        let warnings = messages();
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        for part in [name, "[3, 1]", "[3]", "warnings.rs:"] {
            assert!(warnings[0].contains(part), "{part} is not in {:?}", warnings[0]);
        }
    }
    // Another line is another warning; an error is none.
    x.mse_loss(&t, Reduction::Mean)?;
    assert_eq!(messages().len(), 1);
    assert!(x.mse_loss(&Tensor::zeros([2, 2], DType::F32)?, Reduction::Mean).is_err());
    assert!(messages().is_empty());
    Ok(())
}

#[test]
fn copying_warns_once_a_line_of_a_source_that_broadcasts() -> Result<()> {
    let messages = listen();
    let (x, rows) = (Tensor::zeros([2, 3], DType::F32)?, Tensor::new([1.0, 2.0, 3.0], Device::cpu())?);
    // One shape, a wish that is written down, and a number: all are meant.
    x.copy_(&Tensor::ones([2, 3], DType::F64)?)?;
    x.copy_(&rows.expand([2, 3])?)?;
    x.copy_(&Tensor::new(7.0, Device::cpu())?)?;
    assert!(messages().is_empty());
    for _ in 0..3 {
        x.copy_(&rows)?;
    }
    let warnings = messages();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["copy_", "[3]", "[2, 3]", "warnings.rs:"] {
        assert!(warnings[0].contains(part), "{part} is not in {:?}", warnings[0]);
    }
    assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    Ok(())
}

#[test]
fn gradients_with_a_graph_of_their_own_warn_once() -> Result<()> {
    let messages = listen();
    let x = Tensor::new([3.0], Device::cpu())?.requires_grad_(true)?;
    for _ in 0..3 {
        x.zero_grad();
        x.mul(&x)?.backward_with(BackwardOptions::new().create_graph(true))?;
    }
    let warnings = messages();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("zero_grad") && warnings[0].contains("warnings.rs"), "{warnings:?}");
    let y = x.mul(&x)?;
    grad(&[&y], &[&x], GradOptions::new().create_graph(true))?;
    x.zero_grad();
    assert!(messages().is_empty());
    Ok(())
}
