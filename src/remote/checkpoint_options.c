/*
 * checkpoint_options.c: the command line of virtcheckpointd
 *
 * Options win over the environment (VIRT_CHECKPOINT_SOCKET, _BACKEND, _STATE), which
 * wins over the built-in paths: those of the system for root, those of the XDG folders
 * for an ordinary user.  Messages and exit status follow libvirt's own daemons.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_backend.h"
#include "config.h"

enum {
    OPTION_SOCKET = 256,
    OPTION_BACKEND,
    OPTION_STATE_DIR,
    OPTION_OVERLAY_DIR,
    OPTION_SUPERVISE,
};

static const struct option virCheckpointOptionsLong[] = {
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"backend", required_argument, NULL, OPTION_BACKEND},
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"overlay-dir", required_argument, NULL, OPTION_OVERLAY_DIR},
    {"supervise", no_argument, NULL, OPTION_SUPERVISE},
    {"timeout", required_argument, NULL, 't'},
    {"verbose", no_argument, NULL, 'v'},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static gchar *
virCheckpointOptionsDefaultSocket(void)
{
    g_autofree gchar *dir = virCheckpointBackendSocketDir();

    return g_build_filename(dir, "virtcheckpointd-sock", NULL);
}

static gchar *
virCheckpointOptionsDefaultStateDir(void)
{
    if (geteuid() == 0)
        return g_build_filename(VIR_CHECKPOINT_LOCALSTATEDIR, "lib", "libvirt",
                                "virtcheckpoint", NULL);
    return g_build_filename(g_get_user_data_dir(), "libvirt", "virtcheckpoint", NULL);
}

static void
virCheckpointOptionsHelp(const gchar *program)
{
    g_autofree gchar *path = virCheckpointOptionsDefaultSocket();
    g_autofree gchar *state = virCheckpointOptionsDefaultStateDir();

    printf(
        "\n"
        "Usage:\n"
        "  %s [options]\n"
        "\n"
        "Options:\n"
        "       --socket <path>       Listen at path, read-only at path-ro\n"
        "       --backend <path>      Socket of the libvirt daemon to forward to\n"
        "       --state-dir <dir>     Where checkpoints are recorded\n"
        "       --overlay-dir <dir>   Where overlays are made\n"
        "                             (default: beside the disk's image)\n"
        "       --supervise           Hold the sockets and restart a daemon that died\n"
        "  -t | --timeout <secs>      Exit after timeout period\n"
        "  -v | --verbose             Verbose messages\n"
        "  -V | --version             Display version information\n"
        "  -h | --help                Display program help\n"
        "\n"
        "libvirt checkpoint daemon: libvirt's API with checkpoints that survive and\n"
        "incremental block copies, in front of an unchanged libvirt daemon.\n"
        "\n"
        "Defaults:\n"
        "  socket:     %s\n"
        "  backend:    virtqemud-sock, else libvirt-sock, in the same folder\n"
        "  state:      %s\n"
        "\n",
        program, path, state);
}

static gboolean
virCheckpointOptionsAbsolute(gchar **where, const gchar *what, const gchar *value)
{
    g_autofree gchar *path = g_canonicalize_filename(value, NULL);

    if (*value == '\0') {
        fprintf(stderr, "%s: empty path for %s\n", g_get_prgname(), what);
        return FALSE;
    }
    g_free(*where);
    *where = g_steal_pointer(&path);
    return TRUE;
}

static gboolean
virCheckpointOptionsTimeout(virCheckpointOptions *options, const gchar *value)
{
    guint64 seconds = 0;

    if (!g_ascii_string_to_unsigned(value, 10, 1, G_MAXINT / 1000, &seconds, NULL)) {
        fprintf(stderr, "%s: Invalid value for timeout\n", g_get_prgname());
        return FALSE;
    }
    options->timeoutSec = (guint)seconds;
    return TRUE;
}

static gboolean
virCheckpointOptionsTake(virCheckpointOptions *options, int option, const gchar *value)
{
    switch (option) {
    case OPTION_SOCKET:
        options->socketGiven = TRUE;
        return virCheckpointOptionsAbsolute(&options->socket, "--socket", value);
    case OPTION_BACKEND:
        return virCheckpointOptionsAbsolute(&options->backend, "--backend", value);
    case OPTION_STATE_DIR:
        return virCheckpointOptionsAbsolute(&options->stateDir, "--state-dir", value);
    case OPTION_OVERLAY_DIR:
        return virCheckpointOptionsAbsolute(&options->overlayDir, "--overlay-dir",
                                            value);
    case OPTION_SUPERVISE:
        options->supervise = TRUE;
        return TRUE;
    case 't':
        return virCheckpointOptionsTimeout(options, value);
    case 'v':
        options->verbose = TRUE;
        return TRUE;
    default: /* getopt has said why */
        return FALSE;
    }
}

static gboolean
virCheckpointOptionsEnvironment(virCheckpointOptions *options)
{
    static const struct {
        const gchar *name;
        int option;
    } known[] = {
        {"VIRT_CHECKPOINT_SOCKET", OPTION_SOCKET},
        {"VIRT_CHECKPOINT_BACKEND", OPTION_BACKEND},
        {"VIRT_CHECKPOINT_STATE", OPTION_STATE_DIR},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(known); i++) {
        const gchar *value = g_getenv(known[i].name);

        if (value && *value &&
            !virCheckpointOptionsTake(options, known[i].option, value))
            return FALSE;
    }
    return TRUE;
}

virCheckpointOptionsOutcome
virCheckpointOptionsParse(virCheckpointOptions *options, int argc, char **argv)
{
    int option = 0;

    memset(options, 0, sizeof(*options));
    if (!virCheckpointOptionsEnvironment(options))
        return VIR_CHECKPOINT_OPTIONS_WRONG;

    while ((option = getopt_long(argc, argv, "t:vVh", virCheckpointOptionsLong,
                                 NULL)) >= 0) {
        if (option == 'h') {
            virCheckpointOptionsHelp(argv[0]);
            return VIR_CHECKPOINT_OPTIONS_DONE;
        }
        if (option == 'V') {
            printf("virtcheckpointd (libvirt-checkpoint) %s\n", VIR_CHECKPOINT_VERSION);
            return VIR_CHECKPOINT_OPTIONS_DONE;
        }
        if (!virCheckpointOptionsTake(options, option, optarg))
            return VIR_CHECKPOINT_OPTIONS_WRONG;
    }
    if (optind != argc) {
        fprintf(stderr, "%s: unexpected, non-option, command line arguments\n",
                g_get_prgname());
        return VIR_CHECKPOINT_OPTIONS_WRONG;
    }
    if (!options->socket)
        options->socket = virCheckpointOptionsDefaultSocket();
    if (!options->stateDir)
        options->stateDir = virCheckpointOptionsDefaultStateDir();
    return VIR_CHECKPOINT_OPTIONS_RUN;
}

void
virCheckpointOptionsClear(virCheckpointOptions *options)
{
    g_free(options->socket);
    g_free(options->backend);
    g_free(options->stateDir);
    g_free(options->overlayDir);
    memset(options, 0, sizeof(*options));
}
