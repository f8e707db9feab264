/*
 * virsh_blockcopy.h: our blockcopy, from words to exit status
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_BLOCKCOPY_H
#define VIRSH_BLOCKCOPY_H

#include "virsh_args.h"
#include "virsh_plan.h"
#include "virsh_ui.h"

/**
 * cmdBlockCopy:
 * @args: the command line; @options: what follows the word blockcopy, no @message
 * @uri: to connect to
 * @hint: said when that fails, or NULL
 *
 * Connects, starts the copy and follows it as far as the options say.
 * Returns: TRUE if all went well; else everything was said on @ui.
 */
gboolean
cmdBlockCopy(const virCheckpointVirshArgs *args,
             const virCheckpointVirshOptions *options,
             const gchar *uri,
             const gchar *hint,
             const virCheckpointVirshUi *ui);

/**
 * virCheckpointVirshAnswers:
 * @uri: to connect to; @readonly: as with -r
 *
 * Returns: whether a connection can be opened.  Nothing is printed by us; ssh may ask
 * for a password.
 */
gboolean
virCheckpointVirshAnswers(const gchar *uri, gboolean readonly);

#endif
