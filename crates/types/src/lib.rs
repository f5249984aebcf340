//! Ids, instants, amounts and limits that every part of rota shares
