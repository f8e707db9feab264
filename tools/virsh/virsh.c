/*
 * virsh.c: libvirt's virsh, with the incremental mirror
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A front end of the stock virsh.  It reads the command line as stock does and then
 * does one of three things: runs blockcopy itself if that has one of our options; adds
 * our options to stock's help; or becomes stock virsh, with a connection URI that leads
 * through virtcheckpointd.  Checkpoints and all that is seen of our jobs come from the
 * daemon, so what needs those must not go past it: then no daemon is an error, while
 * every other command works without one.
 */

#include "config.h"

#include <libvirt/virterror.h>
#include <locale.h>
#include <stdlib.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "virsh_args.h"
#include "virsh_blockcopy.h"
#include "virsh_check.h"
#include "virsh_daemon.h"
#include "virsh_options.h"
#include "virsh_stock.h"
#include "virsh_ui.h"
#include "virsh_uri.h"

#define VIRSH_HINT_REMOTE "start it there with: virtcheckpointd"

static gchar *
virCheckpointVirshConfig(void)
{
    g_autofree gchar *file = NULL;
    gchar *text = NULL;

    if (geteuid() == 0)
        file = g_strdup("/etc/libvirt/libvirt.conf");
    else
        file =
            g_build_filename(g_get_user_config_dir(), "libvirt", "libvirt.conf", NULL);
    g_file_get_contents(file, &text, NULL, NULL);
    return text;
}

static virCheckpointVirshRoute *
virCheckpointVirshRouteOf(const virCheckpointVirshArgs *args)
{
    const virCheckpointVirshHost host = {
        .root = geteuid() == 0,
        .readonly = args->readonly,
        .socketPath = g_getenv("VIRT_CHECKPOINT_SOCKET"),
        .runtimeDir = g_get_user_runtime_dir(),
    };
    g_autofree gchar *config = virCheckpointVirshConfig();
    g_autofree gchar *uri = NULL;

    uri = virCheckpointVirshUriDefault(
        virCheckpointVirshArgsUri(args), g_getenv("VIRSH_DEFAULT_CONNECT_URI"),
        g_getenv("LIBVIRT_DEFAULT_URI"), config, host.root);
    return virCheckpointVirshRouteNew(uri, &host);
}

/* Whether the gateway on @route can be used.  Behind ssh nothing can be started, and
 * nobody knows whether it is there before it has been tried. */
static gboolean
virCheckpointVirshReach(virCheckpointVirshRoute *route,
                        const virCheckpointVirshArgs *args,
                        GError **error)
{
    if (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL)
        return virCheckpointVirshDaemonEnsure(route, error);
    if (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_SSH &&
        !virCheckpointVirshAnswers(route->uri, args->readonly)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "no connection to '%s'", route->uri);
        return FALSE;
    }
    return TRUE;
}

static void
virCheckpointVirshSayNoDaemon(const virCheckpointVirshUi *ui,
                              const virCheckpointVirshRoute *route,
                              const GError *error)
{
    if (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL) {
        virCheckpointVirshUiError(
            ui, "checkpoints need virtcheckpointd, which does not answer on '%s': %s",
            route->answers, error->message);
        virCheckpointVirshUiError(ui, "start it with: virtcheckpointd --socket '%s'",
                                  route->socketPath);
    } else {
        virCheckpointVirshUiError(
            ui, "checkpoints need virtcheckpointd on that host: %s", error->message);
        virCheckpointVirshUiError(ui, VIRSH_HINT_REMOTE);
    }
}

static int
virCheckpointVirshBecomeStock(const virCheckpointVirshArgs *args,
                              const gchar *uri,
                              const virCheckpointVirshUi *ui)
{
    g_auto(GStrv) argv = virCheckpointVirshArgsWithUri(args, uri);
    g_autoptr(GError) error = NULL;

    /* Without -c the arguments stay as they are and the default is another one. */
    if (uri && args->uriIndex < 0) {
        const gchar *virshEnv = g_getenv("VIRSH_DEFAULT_CONNECT_URI");

        if (!virshEnv || !*virshEnv)
            g_setenv("LIBVIRT_DEFAULT_URI", uri, TRUE);
        g_setenv("VIRSH_DEFAULT_CONNECT_URI", uri, TRUE);
    }
    virCheckpointVirshStockExec(argv, &error);
    virCheckpointVirshUiError(ui, "%s", error->message);
    return EXIT_FAILURE;
}

static int
virCheckpointVirshRunStock(const virCheckpointVirshArgs *args,
                           gboolean needed,
                           const virCheckpointVirshUi *ui)
{
    g_autoptr(virCheckpointVirshRoute) route = virCheckpointVirshRouteOf(args);
    g_autoptr(GError) error = NULL;

    if (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_NONE)
        return virCheckpointVirshBecomeStock(args, NULL, ui);
    if (virCheckpointVirshReach(route, args, &error))
        return virCheckpointVirshBecomeStock(args, route->uri, ui);
    if (!needed)
        return virCheckpointVirshBecomeStock(args, NULL, ui);
    virCheckpointVirshSayNoDaemon(ui, route, error);
    return EXIT_FAILURE;
}

/* Where to go with a command that is ours; NULL when the daemon does not answer, and
 * that was said. */
static virCheckpointVirshRoute *
virCheckpointVirshOurRoute(const virCheckpointVirshArgs *args,
                           const gchar **hint,
                           const virCheckpointVirshUi *ui)
{
    g_autoptr(virCheckpointVirshRoute) route = virCheckpointVirshRouteOf(args);
    g_autoptr(GError) error = NULL;

    if (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL &&
        !virCheckpointVirshDaemonEnsure(route, &error)) {
        virCheckpointVirshSayNoDaemon(ui, route, error);
        return NULL;
    }
    if (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_SSH)
        *hint = "checkpoints need virtcheckpointd on that host\n" VIRSH_HINT_REMOTE;
    return g_steal_pointer(&route);
}

static int
virCheckpointVirshRunBlockCopy(const virCheckpointVirshArgs *args,
                               const virCheckpointVirshUi *ui)
{
    const gchar *const *words = (const gchar *const *)args->argv + args->first + 1;
    g_autoptr(virCheckpointVirshOptions) options =
        virCheckpointVirshOptionsParse(words);
    g_autoptr(virCheckpointVirshRoute) route = NULL;
    const gchar *hint = NULL;

    if (options->message) {
        virCheckpointVirshUiError(ui, "%s", options->message);
        return EXIT_FAILURE;
    }
    if (!(route = virCheckpointVirshOurRoute(args, &hint, ui)))
        return EXIT_FAILURE;
    return cmdBlockCopy(args, options, route->uri, hint, ui) ? EXIT_SUCCESS
                                                             : EXIT_FAILURE;
}

static int
virCheckpointVirshRunCheck(const virCheckpointVirshArgs *args,
                           const virCheckpointVirshUi *ui)
{
    const gchar *const *words = (const gchar *const *)args->argv + args->first + 1;
    g_autoptr(virCheckpointVirshCheck) check = virCheckpointVirshCheckParse(words);
    g_autoptr(virCheckpointVirshRoute) route = NULL;
    const gchar *hint = NULL;

    if (check->message) {
        virCheckpointVirshUiError(ui, "%s", check->message);
        return EXIT_FAILURE;
    }
    if (!(route = virCheckpointVirshOurRoute(args, &hint, ui)))
        return EXIT_FAILURE;
    return cmdCheckpointCheck(args, check, route->uri, hint, ui);
}

static int
virCheckpointVirshRunCheckHelp(const virCheckpointVirshUi *ui)
{
    g_autofree gchar *text = virCheckpointVirshCheckHelp();

    virCheckpointVirshUiPrint(ui, text);
    return EXIT_SUCCESS;
}

static int
virCheckpointVirshRunHelp(const virCheckpointVirshArgs *args,
                          const virCheckpointVirshUi *ui)
{
    static const gchar *const words[] = {"help", "blockcopy", NULL};
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    g_autofree gchar *text = NULL;
    g_autofree gchar *merged = NULL;
    gint status;
    gint i;

    /* Global options, then our own words: stock would refuse to explain a command that
     * has an option it does not know. */
    for (i = 0; i < args->first; i++)
        g_ptr_array_add(argv, args->argv[i]);
    for (i = 0; i < (gint)G_N_ELEMENTS(words); i++)
        g_ptr_array_add(argv, (gpointer)words[i]);
    if ((status = virCheckpointVirshStockRun((gchar **)argv->pdata, &text, &error)) <
        0) {
        virCheckpointVirshUiError(ui, "%s", error->message);
        return EXIT_FAILURE;
    }
    merged = virCheckpointVirshOptionsMergeHelp(text);
    virCheckpointVirshUiPrint(ui, status == 0 ? merged : text);
    return status;
}

static int
virCheckpointVirshRun(const virCheckpointVirshArgs *args,
                      const virCheckpointVirshUi *ui)
{
    switch (virCheckpointVirshArgsClassify(args)) {
    case VIR_CHECKPOINT_VIRSH_COMMAND_STOCK:
        return virCheckpointVirshRunStock(args, FALSE, ui);
    case VIR_CHECKPOINT_VIRSH_COMMAND_NEEDED:
        return virCheckpointVirshRunStock(args, TRUE, ui);
    case VIR_CHECKPOINT_VIRSH_COMMAND_BLOCKCOPY:
        return virCheckpointVirshRunBlockCopy(args, ui);
    case VIR_CHECKPOINT_VIRSH_COMMAND_CHECK:
        return virCheckpointVirshRunCheck(args, ui);
    case VIR_CHECKPOINT_VIRSH_COMMAND_CHECK_HELP:
        return virCheckpointVirshRunCheckHelp(ui);
    case VIR_CHECKPOINT_VIRSH_COMMAND_HELP:
        return virCheckpointVirshRunHelp(args, ui);
    case VIR_CHECKPOINT_VIRSH_COMMAND_BATCH:
        virCheckpointVirshUiError(
            ui, "blockcopy with --bitmap or --checkpoint and checkpoint-check do not "
                "work in a command string: run them with each word an argument");
        return EXIT_FAILURE;
    case VIR_CHECKPOINT_VIRSH_COMMAND_AS_IS:
    case VIR_CHECKPOINT_VIRSH_COMMAND_LAST:
        break;
    }
    return virCheckpointVirshBecomeStock(args, NULL, ui);
}

int
main(int argc, char **argv)
{
    virCheckpointVirshUi ui = {.out = stdout, .err = stderr};
    virCheckpointVirshArgs args;
    const gchar *log;
    int status;

    (void)setlocale(LC_ALL, "");
    virCheckpointVirshArgsParse(argc, argv, &args);
    ui.quiet = args.quiet;
    ui.timing = args.timing;
    log = args.logFile ? args.logFile : g_getenv("VIRSH_LOG_FILE");
    if (log && *log && !(ui.log = fopen(log, "ae")))
        args.asIs = TRUE; /* stock says what it thinks of it */
    status = virCheckpointVirshRun(&args, &ui);
    if (ui.log)
        (void)fclose(ui.log);
    return fflush(stdout) == 0 ? status : EXIT_FAILURE;
}
