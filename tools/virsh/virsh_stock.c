/*
 * virsh_stock.c: the installed virsh
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stock virsh replaces this process, so that terminal, signals, descriptors and exit
 * status are its own.  It is found by identity, not by path: several names may lead to
 * this program.  A script called virsh that runs us in turn would be a circle; exec
 * keeps the process id, so a note with that id in the environment, VIRSH_NOTE, tells,
 * and the script is passed over.
 */

#include "config.h"

#include "virsh_stock.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_error.h"

#define VIRSH_NOTE "VIRT_CHECKPOINT_VIRSH_STOCK"

static gboolean
virCheckpointVirshStockSame(const struct stat *a, const gchar *path)
{
    struct stat b;

    return path && stat(path, &b) == 0 && a->st_dev == b.st_dev &&
           a->st_ino == b.st_ino;
}

gchar *
virCheckpointVirshStockFind(const gchar *path,
                            const gchar *self,
                            const gchar *skip,
                            GError **error)
{
    g_auto(GStrv) folders =
        g_strsplit(path ? path : "/usr/local/bin:/usr/bin:/bin", ":", -1);
    gsize i;

    for (i = 0; folders[i]; i++) {
        g_autofree gchar *file = NULL;
        struct stat st;

        if (!g_path_is_absolute(folders[i]))
            continue;
        file = g_build_filename(folders[i], "virsh", NULL);
        if (stat(file, &st) == 0 && S_ISREG(st.st_mode) && access(file, X_OK) == 0 &&
            !virCheckpointVirshStockSame(&st, self) &&
            !virCheckpointVirshStockSame(&st, skip))
            return g_steal_pointer(&file);
    }
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "no virsh of libvirt's in PATH; Debian has it in libvirt-clients");
    return NULL;
}

/* The file that this very process was, if a note says that it came from us. */
static gchar *
virCheckpointVirshStockNoted(void)
{
    const gchar *note = g_getenv(VIRSH_NOTE);
    g_autofree gchar *prefix = g_strdup_printf("%d:", (int)getpid());

    if (!note || !g_str_has_prefix(note, prefix))
        return NULL;
    return g_strdup(note + strlen(prefix));
}

static gchar *
virCheckpointVirshStockHere(GError **error)
{
    g_autofree gchar *noted = virCheckpointVirshStockNoted();

    return virCheckpointVirshStockFind(g_getenv("PATH"), "/proc/self/exe", noted,
                                       error);
}

gboolean
virCheckpointVirshStockExec(gchar **argv, GError **error)
{
    g_autofree gchar *file = virCheckpointVirshStockHere(error);
    g_autofree gchar *note = NULL;

    if (!file)
        return FALSE;
    note = g_strdup_printf("%d:%s", (int)getpid(), file);
    g_setenv(VIRSH_NOTE, note, TRUE);
    execv(file, argv);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED, "run '%s': %s",
                file, g_strerror(errno));
    return FALSE;
}

gint
virCheckpointVirshStockRun(gchar **argv, gchar **output, GError **error)
{
    g_autofree gchar *file = virCheckpointVirshStockHere(error);
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    gint status = 0;
    gsize i;

    if (!file)
        return -1;
    /* With G_SPAWN_FILE_AND_ARGV_ZERO the first word is the file, the rest is argv. */
    g_ptr_array_add(words, file);
    for (i = 0; argv[i]; i++)
        g_ptr_array_add(words, argv[i]);
    g_ptr_array_add(words, NULL);
    if (!g_spawn_sync(NULL, (gchar **)words->pdata, NULL,
                      G_SPAWN_FILE_AND_ARGV_ZERO | G_SPAWN_CHILD_INHERITS_STDIN, NULL,
                      NULL, output, NULL, &status, error))
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
