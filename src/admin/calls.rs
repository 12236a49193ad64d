//! Routes, out of what stands at the handlers.
//!
//! `#[utoipa::path]` describes a call where it is answered. Of that the program takes method and path; the document
//! made of the rest is [`super::openapi`]'s, which has it as text: making it takes half a megabyte of code.

use axum::Router;
use axum::handler::Handler;
use axum::routing::on;
use utoipa_axum::PathItemExt as _;

use super::routes::Panel;

/// Writes `calls()`, a router of these handlers, and `described()`, the same for whoever makes the document.
macro_rules! calls {
    ($($handler:ident),+ $(,)?) => {
        fn calls() -> axum::Router<$crate::admin::routes::Panel> {
            let router = axum::Router::new();
            utoipa_axum::paste! {
                $(let router = $crate::admin::calls::with::<[<__path_ $handler>], _, _>(router, $handler);)+
            }
            router
        }

        #[cfg(test)]
        pub(super) fn described() -> utoipa_axum::router::OpenApiRouter<$crate::admin::routes::Panel> {
            utoipa_axum::router::OpenApiRouter::new()$(.routes(utoipa_axum::routes!($handler)))+
        }
    };
}

pub(super) use calls;

/// The router with one more call, whose description is `D`.
pub(super) fn with<D: utoipa::Path, H: Handler<T, Panel>, T: 'static>(
    router: Router<Panel>,
    handler: H,
) -> Router<Panel> {
    let methods = D::methods();
    let filters = methods.iter().map(|method| method.to_method_filter());
    let filter = filters.reduce(|all, one| all.or(one)).expect("a call has a method");
    router.route(&D::path(), on(filter, handler))
}
