/*
 * virsh_check.h: checkpoint-check, from words to exit status
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_CHECK_H
#define VIRSH_CHECK_H

#include "checkpoint_json.h"
#include "virsh_args.h"
#include "virsh_ui.h"

/** Exit statuses of checkpoint-check. */
#define VIR_CHECKPOINT_VIRSH_CHECK_HEALTHY 0
#define VIR_CHECKPOINT_VIRSH_CHECK_UNKNOWN 1 /* or the command failed */
#define VIR_CHECKPOINT_VIRSH_CHECK_WRONG 2

typedef enum {
    VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN,
    VIR_CHECKPOINT_VIRSH_CHECK_REPAIR,
    VIR_CHECKPOINT_VIRSH_CHECK_HEAL,
    VIR_CHECKPOINT_VIRSH_CHECK_DISK,
    VIR_CHECKPOINT_VIRSH_CHECK_AGAINST,
    VIR_CHECKPOINT_VIRSH_CHECK_CHECKPOINT,
    VIR_CHECKPOINT_VIRSH_CHECK_VERBOSE,
    VIR_CHECKPOINT_VIRSH_CHECK_JSON,
    VIR_CHECKPOINT_VIRSH_CHECK_LAST
} virCheckpointVirshCheckOption;

typedef struct virCheckpointVirshCheck {
    gchar *values[VIR_CHECKPOINT_VIRSH_CHECK_LAST]; /* "" for a flag; NULL: absent */
    gboolean help;
    gchar *message; /* what is wrong with the words, in stock's words, or NULL */
} virCheckpointVirshCheck;

/** @words: what follows the word checkpoint-check, NULL-terminated. */
virCheckpointVirshCheck *
virCheckpointVirshCheckParse(const gchar *const *words);
void
virCheckpointVirshCheckFree(virCheckpointVirshCheck *check);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointVirshCheck, virCheckpointVirshCheckFree)

/** Returns: (transfer full): what "help checkpoint-check" shows. */
gchar *
virCheckpointVirshCheckHelp(void);

/**
 * cmdCheckpointCheck:
 * @check: no @message; @uri: to connect to; @hint: said when that fails, or NULL
 *
 * Returns: the exit status; what there is to say was said on @ui.
 */
int
cmdCheckpointCheck(const virCheckpointVirshArgs *args,
                   const virCheckpointVirshCheck *check,
                   const gchar *uri,
                   const gchar *hint,
                   const virCheckpointVirshUi *ui);

/** Returns: (transfer full): @report (docs/internals/health.md) for a screen. */
gchar *
virCheckpointVirshCheckShow(const virCheckpointJson *report);
/** The exit status that @report stands for. */
int
virCheckpointVirshCheckStatus(const virCheckpointJson *report);

#endif
