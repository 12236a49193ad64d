//! The words of the built-in page, per language.

use crate::policy::maintenance::Mode;

/// The built-in texts in one language.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Texts {
    /// BCP 47.
    pub(super) lang: &'static str,
    pub(super) heading: &'static str,
    pub(super) lead: &'static str,
    /// Of `read_only`.
    pub(super) paused_heading: &'static str,
    pub(super) paused_lead: &'static str,
    pub(super) reason: &'static str,
    pub(super) expected: &'static str,
    pub(super) remaining: &'static str,
    pub(super) overdue: &'static str,
    pub(super) returns: &'static str,
    pub(super) back: &'static str,
}

impl Texts {
    pub(super) fn heading_of(&self, mode: Mode) -> &'static str {
        if mode == Mode::ReadOnly { self.paused_heading } else { self.heading }
    }

    pub(super) fn lead_of(&self, mode: Mode) -> &'static str {
        if mode == Mode::ReadOnly { self.paused_lead } else { self.lead }
    }
}

/// Those of `pt` for `pt-BR`, and English for a language that is not built in.
pub(super) fn texts(lang: &str) -> &'static Texts {
    let language = lang.split('-').next().unwrap_or(lang);
    TEXTS.iter().find(|texts| texts.lang.eq_ignore_ascii_case(language)).unwrap_or(&TEXTS[0])
}

/// English first: it is what is spoken when nothing else fits.
pub(super) static TEXTS: [Texts; 8] = [
    Texts {
        lang: "en",
        heading: "We’ll be right back",
        lead: "The site is down for maintenance.",
        paused_heading: "Changes are paused",
        paused_lead: "You can keep reading, but nothing can be saved right now. \
                      Please go back and try again later.",
        reason: "Reason",
        expected: "Expected back",
        remaining: "Time left",
        overdue: "This is taking a little longer than planned. Thank you for your patience.",
        returns: "This page returns by itself when the site is back.",
        back: "The site is back. Loading it now.",
    },
    Texts {
        lang: "de",
        heading: "Wir sind gleich wieder da",
        lead: "Die Website wird gerade gewartet.",
        paused_heading: "Änderungen sind gerade nicht möglich",
        paused_lead: "Lesen können Sie weiterhin, speichern im Moment nicht. \
                      Bitte gehen Sie zurück und versuchen Sie es später noch einmal.",
        reason: "Grund",
        expected: "Voraussichtlich zurück",
        remaining: "Verbleibend",
        overdue: "Es dauert etwas länger als geplant. Danke für Ihre Geduld.",
        returns: "Sobald die Website wieder erreichbar ist, lädt diese Seite von selbst.",
        back: "Die Website ist wieder da und wird geladen.",
    },
    Texts {
        lang: "fr",
        heading: "Nous revenons très vite",
        lead: "Le site est en maintenance.",
        paused_heading: "Les modifications sont suspendues",
        paused_lead: "Vous pouvez continuer à lire, mais rien ne peut être enregistré pour le moment. \
                      Revenez en arrière et réessayez plus tard.",
        reason: "Motif",
        expected: "Retour prévu",
        remaining: "Temps restant",
        overdue: "L’opération dure un peu plus longtemps que prévu. Merci de votre patience.",
        returns: "Cette page se rechargera d’elle-même dès que le site sera de retour.",
        back: "Le site est de retour. Chargement en cours.",
    },
    Texts {
        lang: "es",
        heading: "Volvemos enseguida",
        lead: "El sitio está en mantenimiento.",
        paused_heading: "Los cambios están en pausa",
        paused_lead: "Puede seguir leyendo, pero ahora mismo no es posible guardar nada. \
                      Vuelva atrás e inténtelo de nuevo más tarde.",
        reason: "Motivo",
        expected: "Regreso previsto",
        remaining: "Tiempo restante",
        overdue: "Está tardando un poco más de lo previsto. Gracias por su paciencia.",
        returns: "Esta página se recargará sola cuando el sitio esté disponible.",
        back: "El sitio ya está disponible. Cargando.",
    },
    Texts {
        lang: "pt",
        heading: "Voltamos já",
        lead: "O site está em manutenção.",
        paused_heading: "As alterações estão suspensas",
        paused_lead: "Você pode continuar lendo, mas nada pode ser salvo no momento. \
                      Volte e tente novamente mais tarde.",
        reason: "Motivo",
        expected: "Retorno previsto",
        remaining: "Tempo restante",
        overdue: "Está demorando um pouco mais do que o previsto. Obrigado pela paciência.",
        returns: "Esta página será recarregada sozinha quando o site voltar.",
        back: "O site voltou. Carregando.",
    },
    Texts {
        lang: "id",
        heading: "Kami segera kembali",
        lead: "Situs ini sedang dalam pemeliharaan.",
        paused_heading: "Perubahan sedang ditangguhkan",
        paused_lead: "Anda tetap dapat membaca, tetapi untuk sementara tidak ada yang dapat disimpan. \
                      Silakan kembali dan coba lagi nanti.",
        reason: "Alasan",
        expected: "Perkiraan kembali",
        remaining: "Sisa waktu",
        overdue: "Prosesnya sedikit lebih lama dari rencana. Terima kasih atas kesabaran Anda.",
        returns: "Halaman ini akan dimuat ulang dengan sendirinya setelah situs kembali.",
        back: "Situs sudah kembali. Sedang dimuat.",
    },
    Texts {
        lang: "ja",
        heading: "まもなく再開します",
        lead: "ただいまサイトのメンテナンスを行っています。",
        paused_heading: "変更を一時停止しています",
        paused_lead: "閲覧は引き続きご利用いただけますが、現在は保存ができません。\
                      前の画面に戻り、しばらくしてからもう一度お試しください。",
        reason: "理由",
        expected: "再開予定",
        remaining: "残り時間",
        overdue: "予定より少し時間がかかっています。ご不便をおかけして申し訳ございません。",
        returns: "サイトが再開すると、このページは自動的に切り替わります。",
        back: "サイトが再開しました。読み込んでいます。",
    },
    Texts {
        lang: "zh",
        heading: "我们马上回来",
        lead: "网站正在维护中。",
        paused_heading: "暂时无法更改",
        paused_lead: "您可以继续浏览，但目前无法保存任何内容。请返回上一页，稍后再试。",
        reason: "原因",
        expected: "预计恢复时间",
        remaining: "剩余时间",
        overdue: "维护时间比计划略长，感谢您的耐心等待。",
        returns: "网站恢复后，本页面会自动刷新。",
        back: "网站已恢复，正在加载。",
    },
];
