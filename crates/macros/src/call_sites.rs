//! `#[call_sites]`: attributes the operations inside a method to the call of the method, by name and line.

use quote::quote;
use syn::{Error, ImplItem, ItemImpl, Visibility, parse_quote};

/// Adds to each public function of a block, and to each function of a trait's, a statement that notes the
/// function's name and the line of its caller.
pub(crate) fn expand(mut block: ItemImpl) -> proc_macro2::TokenStream {
    let of_trait = block.trait_.is_some();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
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
    quote!(#block)
}
