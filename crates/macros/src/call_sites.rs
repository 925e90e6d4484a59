//! `#[call_sites]`: operations that know by which name and from which line of the program they were called; and the methods of
//! formulas of tensors, each made of the tensors' method of the same name.

use quote::{format_ident, quote};
use syn::{
    Error, FnArg, GenericArgument, ImplItem, ImplItemFn, ItemImpl, Pat, PathArguments, ReturnType, Type,
    TypeParamBound, Visibility, parse_quote,
};

/// Adds to each public function of a block, and to each of a trait's, that it notes its name and its caller's line. For a block of
/// methods of `Tensor`, adds a block with those of `TensorExpr`.
pub(crate) fn expand(mut block: ItemImpl) -> proc_macro2::TokenStream {
    let of_trait = block.trait_.is_some();
    let of_tensors = !of_trait && is_path_to(&block.self_ty, "Tensor");
    let mut steps = Vec::new();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        if of_tensors {
            steps.extend(step(function));
        }
        let public = of_trait || matches!(function.vis, Visibility::Public(_));
        if !public || function.sig.constness.is_some() {
            continue;
        }
        if let Some(asyncness) = &function.sig.asyncness {
            return Error::new_spanned(asyncness, "#[call_sites] cannot follow an async fn")
                .to_compile_error();
        }
        function.attrs.push(parse_quote!(#[track_caller]));
        let name = function.sig.ident.to_string();
        // The identifier is hygienic, so it cannot clash with names in the body.
        let line = syn::Ident::new("line", proc_macro2::Span::mixed_site());
        function.block.stmts.insert(
            0,
            parse_quote!(
                let #line = ::wgrad_array::site::enter(#name, ::core::panic::Location::caller());
            ),
        );
    }
    if steps.is_empty() {
        return quote!(#block);
    }
    quote! {
        #block

        // A tensor's method need not be of use in a formula.
        #[allow(dead_code, clippy::too_many_arguments)]
        impl crate::TensorExpr {
            #(#steps)*
        }
    }
}

/// The step of a formula that a method of tensors is: for one that takes `&self`, gives a `Result<Tensor>` and is not in place.
///
/// An operand that is a tensor may be a part of a formula, too.
fn step(function: &ImplItemFn) -> Option<proc_macro2::TokenStream> {
    let mut signature = function.sig.clone();
    let in_place = signature.ident.to_string().ends_with('_');
    let by_reference =
        signature.receiver().is_some_and(|own| own.reference.is_some() && own.mutability.is_none());
    if in_place || !by_reference || !gives_a_tensor(&signature.output) {
        return None;
    }
    let mut arguments = Vec::new();
    for input in signature.inputs.iter_mut().skip(1) {
        let FnArg::Typed(input) = input else { return None };
        let Pat::Ident(pattern) = &mut *input.pat else { return None };
        pattern.mutability = None;
        let name = &pattern.ident;
        if is_tensor_reference(&input.ty) {
            *input.ty = parse_quote!(impl crate::AsTensor);
            arguments.push(quote!(#name.as_tensor()?));
        } else if is_value(&input.ty) {
            *input.ty = parse_quote!(impl ::core::convert::Into<crate::ExprOperand>);
            arguments.push(quote!(::core::convert::Into::<crate::ExprOperand>::into(#name).value()?));
        } else {
            arguments.push(quote!(#name));
        }
    }
    signature.output = parse_quote!(-> crate::TensorExpr);
    let (method, visibility) = (&signature.ident, &function.vis);
    let name = method.to_string();
    let documentation = format!("[`Tensor::{name}`] as a step of a formula.");
    let documentation = matches!(visibility, Visibility::Public(_)).then(|| quote!(#[doc = #documentation]));
    // Hygienic: no argument has its name.
    let tensor = format_ident!("tensor", span = proc_macro2::Span::mixed_site());
    Some(quote! {
        #documentation
        #[track_caller]
        #visibility #signature {
            // The traits' methods, wherever this is.
            use crate::AsTensor as _;
            self.step(#name, |#tensor| #tensor.#method(#(#arguments),*))
        }
    })
}

fn is_path_to(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.is_ident(name))
}

/// `Result<Tensor>`.
fn gives_a_tensor(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else { return false };
    let Type::Path(path) = &**ty else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return false };
    let mut arguments = arguments.args.iter();
    match (last.ident == "Result", arguments.next(), arguments.next()) {
        (true, Some(GenericArgument::Type(value)), None) => is_path_to(value, "Tensor"),
        _ => false,
    }
}

/// `&Tensor`.
fn is_tensor_reference(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference)
        if reference.mutability.is_none() && reference.lifetime.is_none() && is_path_to(&reference.elem, "Tensor"))
}

/// `impl Into<Value>` or `Value`.
fn is_value(ty: &Type) -> bool {
    if is_path_to(ty, "Value") {
        return true;
    }
    let Type::ImplTrait(ty) = ty else { return false };
    let Some(TypeParamBound::Trait(bound)) = ty.bounds.first() else { return false };
    let Some(last) = bound.path.segments.last() else { return false };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return false };
    last.ident == "Into"
        && matches!(arguments.args.first(), Some(GenericArgument::Type(value)) if is_path_to(value, "Value"))
}
