/*
 * checkpoint_file.h: descriptors and durable files
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_FILE_H
#define VIR_CHECKPOINT_FILE_H

#include <glib.h>

/** A descriptor closed at the end of its scope; set it to -1 when declared. */
#define VIR_CHECKPOINT_AUTOFD __attribute__((cleanup(virCheckpointFdCleanup)))
void
virCheckpointFdCleanup(int *fd);
int
virCheckpointFdSteal(int *fd);

/**
 * virCheckpointFileWrite:
 * @path: absolute; @text: contents; the file gets mode 0600
 *
 * Durable and atomic: a power cut leaves the old or the new contents, and the new ones
 * once TRUE was returned: a new file is synced, renamed, and the directory synced.
 */
gboolean
virCheckpointFileWrite(const gchar *path, const gchar *text, GError **error);

/** Reads at most @maxBytes.  Errors name the file: CONFIG_UNSUPPORTED, it is no text of
 * that size; else it could not be read, which may pass. */
gchar *
virCheckpointFileRead(const gchar *path, gsize maxBytes, GError **error);

/** fdatasync of a file by path, and of its directory. */
gboolean
virCheckpointFileSync(const gchar *path, GError **error);
/** fdatasync of a file by path, whose name is synced later or not at all. */
gboolean
virCheckpointFileSyncData(const gchar *path, GError **error);

/** fsync of a file by path: its times, too, which fdatasync leaves to the kernel. */
gboolean
virCheckpointFileSyncTimes(const gchar *path, GError **error);

/** Sync of the directory that @path is in: what it was renamed to lives on. */
gboolean
virCheckpointFileSyncName(const gchar *path, GError **error);

/** rename(2), not synced: virCheckpointFileSyncName() does that for several. */
gboolean
virCheckpointFileMove(const gchar *from, const gchar *to, GError **error);

/** rename(2), then sync of the target's directory. */
gboolean
virCheckpointFileRename(const gchar *from, const gchar *to, GError **error);

/** unlink(2) and sync of the directory; a missing file is success. */
gboolean
virCheckpointFileRemove(const gchar *path, GError **error);

/** mkdir -p with @mode for what is made; each new directory's parent is synced. */
gboolean
virCheckpointFileMakeDirs(const gchar *path, gint mode, GError **error);

/**
 * virCheckpointFileLock:
 * Takes an exclusive fcntl open-file-description lock on @path (created 0600).
 * @wait: block until it is free; else VIR_ERR_RESOURCE_BUSY "... is held by another
 * process".
 *
 * Returns: the descriptor that holds the lock until it is closed, or -1.
 */
int
virCheckpointFileLock(const gchar *path, gboolean wait, GError **error);
/**
 * virCheckpointFileLockSoon: as virCheckpointFileLock(), but waits for @patienceMs
 *
 * For locks that are a process's own: one that was killed may leave a child between
 * fork and exec, which holds all that the process held for that moment.
 */
int
virCheckpointFileLockSoon(const gchar *path, guint patienceMs, GError **error);

#endif
