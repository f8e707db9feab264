/*
 * virsh_check.c: checkpoint-check: are the checkpoints of a domain sound?
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A client of the daemon like any other: the commands travel as monitor commands
 * (docs/internals/health.md).  A heal runs in the daemon; here it is started, watched
 * and, on Ctrl-C, cancelled.  Stock libvirtd hands such a command to QEMU, which does
 * not know it: that means that no virtcheckpointd is in between.
 */

#include "config.h"

#include "virsh_check.h"

#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"

#define VIRSH_XML_MAX_BYTES (10 * 1024 * 1024)
/** How often a heal is asked how far it is: more and more seldom. */
#define VIRSH_HEAL_POLL_USEC (10 * 1000)
#define VIRSH_HEAL_POLL_MAX_USEC (300 * 1000)

#define OPTION(name) [VIR_CHECKPOINT_VIRSH_CHECK_##name]

static const struct {
    const gchar *name;
    gboolean value;
    const gchar *help;
} virCheckpointVirshCheckTable[] = {
    OPTION(DOMAIN) = {"domain", TRUE, "domain name, id or uuid"},
    OPTION(REPAIR) = {"repair", FALSE,
                      "do what needs no decision; nothing is lost by it"},
    OPTION(HEAL) = {"heal", FALSE, "find lost changes by comparing with a replica"},
    OPTION(DISK) = {"disk", TRUE, "with --heal: the disk, as vda"},
    OPTION(AGAINST) = {"against", TRUE,
                       "with --heal: file with the <disk> XML of an untouched replica"},
    OPTION(CHECKPOINT) = {"checkpoint", TRUE,
                          "with --heal: the checkpoint that the replica holds"},
    OPTION(VERBOSE) = {"verbose", FALSE, "with --heal: display the progress"},
    OPTION(JSON) = {"json", FALSE, "print the report as JSON"},
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointVirshCheckTable) ==
                VIR_CHECKPOINT_VIRSH_CHECK_LAST);

static volatile sig_atomic_t virCheckpointVirshCheckInterrupted;

static void
virCheckpointVirshCheckSignal(int number)
{
    virCheckpointVirshCheckInterrupted = 1;
}

gchar *
virCheckpointVirshCheckHelp(void)
{
    GString *out = g_string_new("  NAME\n    checkpoint-check - check the checkpoints "
                                "of a domain\n\n  SYNOPSIS\n    checkpoint-check "
                                "<domain>");
    gint i;

    for (i = VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN + 1; i < VIR_CHECKPOINT_VIRSH_CHECK_LAST;
         i++)
        g_string_append_printf(out, " [--%s%s]", virCheckpointVirshCheckTable[i].name,
                               virCheckpointVirshCheckTable[i].value ? " <string>"
                                                                     : "");
    g_string_append(out,
                    "\n\n  DESCRIPTION\n    Says of each checkpoint and disk what "
                    "the store and the image have, what is wrong, and what mends "
                    "it.\n    Exit status 0: healthy, 1: cannot tell, 2: something "
                    "is wrong.\n\n  OPTIONS\n");
    for (i = 0; i < VIR_CHECKPOINT_VIRSH_CHECK_LAST; i++) {
        g_autofree gchar *word = g_strdup_printf(
            i == VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN ? "[--%s] %s" : "--%s %s",
            virCheckpointVirshCheckTable[i].name,
            virCheckpointVirshCheckTable[i].value ? "<string>" : "");

        g_string_append_printf(out, "    %-16s %s\n", g_strchomp(word),
                               virCheckpointVirshCheckTable[i].help);
    }
    g_string_append_c(out, '\n');
    return g_string_free(out, FALSE);
}

static gchar *
virCheckpointVirshCheckSet(virCheckpointVirshCheck *check,
                           gint option,
                           const gchar *value)
{
    if (check->values[option])
        return g_strdup_printf("option --%s already seen",
                               virCheckpointVirshCheckTable[option].name);
    check->values[option] = g_strdup(value);
    return NULL;
}

/* "--name", "--name value" or "--name=value"; @next moves behind a value. */
static gchar *
virCheckpointVirshCheckNamed(virCheckpointVirshCheck *check,
                             const gchar *word,
                             const gchar *const **next)
{
    const gchar *equals = strchr(word, '=');
    g_autofree gchar *name = NULL;
    gint i;

    name =
        equals ? g_strndup(word + 2, (gsize)(equals - word - 2)) : g_strdup(word + 2);
    for (i = 0; i < VIR_CHECKPOINT_VIRSH_CHECK_LAST; i++) {
        if (g_str_equal(virCheckpointVirshCheckTable[i].name, name))
            break;
    }
    if (i == VIR_CHECKPOINT_VIRSH_CHECK_LAST)
        return g_strdup_printf("command 'checkpoint-check' doesn't support option --%s",
                               name);
    if (!virCheckpointVirshCheckTable[i].value)
        return equals ? g_strdup_printf("invalid '=' after option --%s", name)
                      : virCheckpointVirshCheckSet(check, i, "");
    if (equals)
        return virCheckpointVirshCheckSet(check, i, equals + 1);
    if (!**next)
        return g_strdup_printf("expected syntax: --%s <string>", name);
    return virCheckpointVirshCheckSet(check, i, *(*next)++);
}

/* Options that need each other, in stock's words. */
static gchar *
virCheckpointVirshCheckRelations(const virCheckpointVirshCheck *check)
{
    static const gint needed[] = {VIR_CHECKPOINT_VIRSH_CHECK_DISK,
                                  VIR_CHECKPOINT_VIRSH_CHECK_AGAINST};
    static const gint needing[] = {
        VIR_CHECKPOINT_VIRSH_CHECK_DISK, VIR_CHECKPOINT_VIRSH_CHECK_AGAINST,
        VIR_CHECKPOINT_VIRSH_CHECK_CHECKPOINT, VIR_CHECKPOINT_VIRSH_CHECK_VERBOSE};
    gsize i;

    if (!check->values[VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN])
        return g_strdup("command 'checkpoint-check' requires <domain> option");
    if (check->values[VIR_CHECKPOINT_VIRSH_CHECK_REPAIR] &&
        check->values[VIR_CHECKPOINT_VIRSH_CHECK_HEAL])
        return g_strdup("Options --repair and --heal are mutually exclusive");
    for (i = 0; i < G_N_ELEMENTS(needed); i++) {
        if (check->values[VIR_CHECKPOINT_VIRSH_CHECK_HEAL] && !check->values[needed[i]])
            return g_strdup_printf("Option --%s is required by option --heal",
                                   virCheckpointVirshCheckTable[needed[i]].name);
    }
    for (i = 0; i < G_N_ELEMENTS(needing); i++) {
        if (check->values[needing[i]] &&
            !check->values[VIR_CHECKPOINT_VIRSH_CHECK_HEAL])
            return g_strdup_printf("Option --heal is required by option --%s",
                                   virCheckpointVirshCheckTable[needing[i]].name);
    }
    return NULL;
}

virCheckpointVirshCheck *
virCheckpointVirshCheckParse(const gchar *const *words)
{
    g_autoptr(virCheckpointVirshCheck) check = g_new0(virCheckpointVirshCheck, 1);
    gboolean dataOnly = FALSE;

    while (*words && !check->message && !check->help) {
        const gchar *word = *words++;

        if (!dataOnly && g_str_equal(word, "--"))
            dataOnly = TRUE;
        else if (!dataOnly && g_str_equal(word, "--help"))
            check->help = TRUE;
        else if (!dataOnly && g_str_has_prefix(word, "--") && g_ascii_isalnum(word[2]))
            check->message = virCheckpointVirshCheckNamed(check, word, &words);
        else if (!check->values[VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN])
            check->message = virCheckpointVirshCheckSet(
                check, VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN, word);
        else
            check->message = g_strdup_printf("unexpected data '%s'", word);
    }
    if (!check->message && !check->help)
        check->message = virCheckpointVirshCheckRelations(check);
    return g_steal_pointer(&check);
}

void
virCheckpointVirshCheckFree(virCheckpointVirshCheck *check)
{
    gint i;

    if (!check)
        return;
    for (i = 0; i < VIR_CHECKPOINT_VIRSH_CHECK_LAST; i++)
        g_free(check->values[i]);
    g_free(check->message);
    g_free(check);
}

/* One command; NULL when it failed, and that was said. */
static virCheckpointJson *
virCheckpointVirshCheckRun(virDomainPtr dom,
                           const gchar *command,
                           virCheckpointJson *arguments,
                           const virCheckpointVirshUi *ui)
{
    g_autoptr(virCheckpointJson) message =
        virCheckpointJsonBuild("s:execute", command, "a:arguments", arguments, NULL);
    g_autofree gchar *text = virCheckpointJsonFormat(message);
    g_autoptr(virCheckpointJson) reply = NULL;
    const virCheckpointJson *value;
    char *answer = NULL;

    if (virDomainQemuMonitorCommand(dom, text, &answer, 0) < 0) {
        virCheckpointVirshUiLibvirtError(ui);
        return NULL;
    }
    reply = virCheckpointJsonParse(answer, -1, NULL);
    free(answer);
    if ((value = virCheckpointJsonGet(reply, "return")))
        return virCheckpointJsonCopy(value);
    virCheckpointVirshUiError(
        ui, "checkpoint-check needs a connection through virtcheckpointd");
    return NULL;
}

static virDomainPtr
virCheckpointVirshCheckFind(virConnectPtr conn,
                            const gchar *domain,
                            const virCheckpointVirshUi *ui)
{
    virDomainPtr dom = NULL;
    guint64 id = 0;

    if (g_ascii_string_to_unsigned(domain, 10, 0, G_MAXINT, &id, NULL))
        dom = virDomainLookupByID(conn, (int)id);
    if (!dom && strlen(domain) == VIR_UUID_STRING_BUFLEN - 1)
        dom = virDomainLookupByUUIDString(conn, domain);
    if (!dom)
        dom = virDomainLookupByName(conn, domain);
    if (!dom)
        virCheckpointVirshUiError(ui, "failed to get domain '%s'", domain);
    virResetLastError();
    return dom;
}

static virCheckpointJson *
virCheckpointVirshCheckRequest(const virCheckpointVirshCheck *check,
                               const virCheckpointVirshUi *ui)
{
    const gchar *file = check->values[VIR_CHECKPOINT_VIRSH_CHECK_AGAINST];
    g_autofree gchar *xml = NULL;
    g_autoptr(GError) error = NULL;

    if (access(file, R_OK) < 0) {
        virCheckpointVirshUiError(ui, "Failed to open file '%s': %s", file,
                                  g_strerror(errno));
        return NULL;
    }
    if (!(xml = virCheckpointFileRead(file, VIRSH_XML_MAX_BYTES, &error))) {
        virCheckpointVirshUiError(ui, "%s", error->message);
        return NULL;
    }
    return virCheckpointJsonBuild(
        "s:disk", check->values[VIR_CHECKPOINT_VIRSH_CHECK_DISK], "s:against", xml,
        "s:checkpoint", check->values[VIR_CHECKPOINT_VIRSH_CHECK_CHECKPOINT], NULL);
}

/* Follows the heal that was started.  FALSE: it did not end well, and that was said. */
static gboolean
virCheckpointVirshCheckFollow(virDomainPtr dom,
                              const virCheckpointVirshCheck *check,
                              const virCheckpointVirshUi *ui)
{
    const gchar *disk = check->values[VIR_CHECKPOINT_VIRSH_CHECK_DISK];
    gboolean cancelled = FALSE;
    gulong poll = VIRSH_HEAL_POLL_USEC;

    for (;;) {
        g_autoptr(virCheckpointJson) now = NULL;
        const gchar *state;
        guint64 done = 0;
        guint64 total = 0;

        if (virCheckpointVirshCheckInterrupted && !cancelled) {
            virCheckpointJsonFree(virCheckpointVirshCheckRun(
                dom, "virtcheckpoint-cancel-heal",
                virCheckpointJsonBuild("s:disk", disk, NULL), ui));
            cancelled = TRUE;
        }
        if (!(now = virCheckpointVirshCheckRun(
                  dom, "virtcheckpoint-query-heal",
                  virCheckpointJsonBuild("s:disk", disk, NULL), ui)))
            return FALSE;
        state = virCheckpointJsonGetString(now, "state");
        virCheckpointJsonGetUint64(now, "done", &done);
        virCheckpointJsonGetUint64(now, "total", &total);
        if (check->values[VIR_CHECKPOINT_VIRSH_CHECK_VERBOSE] && total > 0) {
            (void)fprintf(ui->err, "\rHeal: [%3.0f %%]",
                          100.0 * (gdouble)done / (gdouble)total);
            (void)fflush(ui->err);
        }
        if (g_strcmp0(state, "running") != 0) {
            if (check->values[VIR_CHECKPOINT_VIRSH_CHECK_VERBOSE])
                (void)fputc('\n', ui->err);
            if (g_strcmp0(state, "completed") == 0)
                return TRUE;
            virCheckpointVirshUiError(ui, "%s",
                                      virCheckpointJsonGetString(now, "error"));
            return FALSE;
        }
        g_usleep(poll);
        poll = MIN(poll * 5 / 4, VIRSH_HEAL_POLL_MAX_USEC);
    }
}

static gboolean
virCheckpointVirshCheckHeal(virDomainPtr dom,
                            const virCheckpointVirshCheck *check,
                            const virCheckpointVirshUi *ui)
{
    virCheckpointJson *request = virCheckpointVirshCheckRequest(check, ui);
    g_autoptr(virCheckpointJson) started = NULL;
    struct sigaction action = {.sa_handler = virCheckpointVirshCheckSignal};
    struct sigaction before;
    gboolean done;

    if (!request)
        return FALSE;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &before);
    started = virCheckpointVirshCheckRun(dom, "virtcheckpoint-heal", request, ui);
    done = started && virCheckpointVirshCheckFollow(dom, check, ui);
    sigaction(SIGINT, &before, NULL);
    return done;
}

static int
virCheckpointVirshCheckDomain(virConnectPtr conn,
                              const virCheckpointVirshCheck *check,
                              const virCheckpointVirshUi *ui)
{
    virDomainPtr dom = virCheckpointVirshCheckFind(
        conn, check->values[VIR_CHECKPOINT_VIRSH_CHECK_DOMAIN], ui);
    g_autoptr(virCheckpointJson) report = NULL;
    g_autofree gchar *text = NULL;

    if (!dom)
        return VIR_CHECKPOINT_VIRSH_CHECK_UNKNOWN;
    if (!check->values[VIR_CHECKPOINT_VIRSH_CHECK_HEAL] ||
        virCheckpointVirshCheckHeal(dom, check, ui))
        report = virCheckpointVirshCheckRun(
            dom,
            check->values[VIR_CHECKPOINT_VIRSH_CHECK_REPAIR] ? "virtcheckpoint-repair"
                                                             : "virtcheckpoint-check",
            NULL, ui);
    virDomainFree(dom);
    if (!report)
        return VIR_CHECKPOINT_VIRSH_CHECK_UNKNOWN;
    text = check->values[VIR_CHECKPOINT_VIRSH_CHECK_JSON]
               ? virCheckpointJsonFormat(report)
               : virCheckpointVirshCheckShow(report);
    virCheckpointVirshUiPrint(ui, text);
    return virCheckpointVirshCheckStatus(report);
}

static void
virCheckpointVirshCheckQuiet(void *data, virErrorPtr error)
{
}

int
cmdCheckpointCheck(const virCheckpointVirshArgs *args,
                   const virCheckpointVirshCheck *check,
                   const gchar *uri,
                   const gchar *hint,
                   const virCheckpointVirshUi *ui)
{
    gint64 start = g_get_monotonic_time();
    virConnectPtr conn;
    int status;

    virSetErrorFunc(NULL, virCheckpointVirshCheckQuiet);
    conn = virConnectOpenAuth(uri, virConnectAuthPtrDefault,
                              args->readonly ? VIR_CONNECT_RO : 0);
    if (!conn) {
        virCheckpointVirshUiError(ui, "failed to connect to the hypervisor");
        virCheckpointVirshUiLibvirtError(ui);
        if (hint)
            virCheckpointVirshUiError(ui, "%s", hint);
        return VIR_CHECKPOINT_VIRSH_CHECK_UNKNOWN;
    }
    status = virCheckpointVirshCheckDomain(conn, check, ui);
    virCheckpointVirshUiDone(ui, g_get_monotonic_time() - start);
    virConnectClose(conn);
    return status;
}
