//! The `#[no_grad]` attribute, `#[derive(Module)]`, and what wgrad's own crates use beside them.

mod call_sites;
mod module;

use proc_macro::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, parse_macro_input, parse_quote};

/// Runs a function's body without recording gradients, like PyTorch's `@torch.no_grad()`.
///
/// It applies to free functions and to methods, generic and `async` ones too. An async function runs without
/// recording on whichever thread polls it; other code that runs between the polls is not affected.
///
/// ```ignore
/// #[no_grad]
/// fn evaluate(model: &Model, x: &Tensor) -> wgrad::Result<Tensor> {
///     model.forward(x)
/// }
/// ```
#[proc_macro_attribute]
pub fn no_grad(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut function = parse_macro_input!(item as ItemFn);
    if !arguments.is_empty() {
        let message = "#[no_grad] takes no arguments";
        return Error::new_spanned(&function.sig.ident, message).to_compile_error().into();
    }
    if function.sig.constness.is_some() {
        let message = "#[no_grad] has no meaning for a const fn";
        return Error::new_spanned(function.sig.constness, message).to_compile_error().into();
    }
    let body = &function.block;
    function.block = if function.sig.asyncness.is_some() {
        parse_quote!({ ::wgrad::no_grad_async(async move #body).await })
    } else {
        let statements = &body.stmts;
        // The identifier is hygienic, so it cannot clash with names in the body.
        let guard = syn::Ident::new("guard", proc_macro2::Span::mixed_site());
        parse_quote!({
            let #guard = ::wgrad::GradModeGuard::new(false);
            #(#statements)*
        })
    };
    quote!(#function).into()
}

/// For `impl` blocks of wgrad's own crates: each public function, and each function of a trait's, notes its
/// name and the line of the program that calls it. The operations that it calls in turn are attributed to
/// that line, too.
#[proc_macro_attribute]
pub fn call_sites(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let block = parse_macro_input!(item as syn::ItemImpl);
    if !arguments.is_empty() {
        return Error::new_spanned(&block.self_ty, "#[call_sites] takes no arguments")
            .to_compile_error()
            .into();
    }
    call_sites::expand(block).into()
}

/// Makes a struct a module: `wgrad::nn::Module`, which finds its parameters, buffers and layers through its
/// fields.
///
/// A field of type `Tensor` is a parameter, with `#[buffer]` a buffer, which is moved and saved but not
/// trained; with `#[buffer(transient)]` it is moved only. Fields that hold modules are walked: other structs,
/// `Vec`, `Option`, `Box`, tuples, arrays, maps by name. Numbers, strings and settings hold nothing.
///
/// `#[module(skip)]` leaves a field out, `#[module(rename = "name")]` gives it another name in paths, and
/// `#[module(flatten)]` puts what it holds beside the struct's own fields.
///
/// ```ignore
/// #[derive(Clone, Module)]
/// struct Net {
///     first: Linear,
///     rest: Vec<Linear>,
///     scale: Tensor,
///     #[buffer]
///     seen: Tensor,
/// }
/// ```
#[proc_macro_derive(Module, attributes(module, buffer))]
pub fn derive_module(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as syn::DeriveInput);
    module::expand(input).unwrap_or_else(Error::into_compile_error).into()
}
