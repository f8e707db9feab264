/*
 * checkpoint_definition.c: libvirt's definitions on the disk
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: which image a guest starts on is in libvirt's definition of it.  Libvirt
 * (9.0) writes one to a new file, syncs that and renames it, but does not sync the
 * folder: a power cut in the seconds after brings the old definition back.  A guest
 * would then start on an image that is not its own any more, without what it had
 * flushed.  So whoever relies on a definition syncs the folder.
 */

#include "config.h"

#include <unistd.h>

#include "checkpoint_definition.h"
#include "checkpoint_file.h"

/* Where a libvirt of the packages has them; another one's are left to it. */
#define VIR_CHECKPOINT_QEMU_DOMAINS "/etc/libvirt/qemu"
#define VIR_CHECKPOINT_QEMU_CHECKPOINTS "/var/lib/libvirt/qemu/checkpoint"

static gchar *
virCheckpointDefinitionFolder(const gchar *systems, const gchar *users)
{
    if (geteuid() == 0)
        return g_strdup(systems);
    return g_build_filename(g_get_user_config_dir(), "libvirt", users, NULL);
}

gboolean
virCheckpointDefinitionSync(GError **error)
{
    g_autofree gchar *folder =
        virCheckpointDefinitionFolder(VIR_CHECKPOINT_QEMU_DOMAINS, "qemu");
    g_autofree gchar *any = g_build_filename(folder, "domain.xml", NULL);

    return !g_file_test(folder, G_FILE_TEST_IS_DIR) ||
           virCheckpointFileSyncName(any, error);
}

gboolean
virCheckpointDefinitionForget(const gchar *domain, const gchar *name, GError **error)
{
    g_autofree gchar *base = virCheckpointDefinitionFolder(
        VIR_CHECKPOINT_QEMU_CHECKPOINTS, "qemu/checkpoint");
    g_autofree gchar *folder = g_build_filename(base, domain, NULL);
    g_autofree gchar *file = g_strdup_printf("%s/%s.xml.new", folder, name);

    /* What libvirt was renaming: it takes that for a checkpoint, too, when it starts,
     * and removes only what it renames it to. */
    return !g_file_test(folder, G_FILE_TEST_IS_DIR) ||
           (virCheckpointFileRemove(file, error) &&
            virCheckpointFileSyncName(file, error));
}
